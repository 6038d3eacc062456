"""API keys: made at random, shown once, kept as SHA-256 digests.

A key has 190 bits of entropy, so a plain digest is enough: there is nothing for a slow hash to slow.
"""

import hashlib
import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.stores.database import metadata

_ALPHABET = string.ascii_letters + string.digits
_SECRET_LENGTH = 32
_HINT_LENGTH = 7

keys = sa.Table(
    "keys",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("role", sa.String, nullable=False),
    sa.Column("tenant", sa.String, nullable=False, index=True),
    sa.Column("tier", sa.String, nullable=False),
    sa.Column("models", sa.JSON),
    sa.Column("hint", sa.String, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("expires", sa.Float),
)
revisions = sa.Table(
    "revisions",
    metadata,
    sa.Column("subject", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
)


class Role(StrEnum):
    """What a key opens: a client's opens /v1, the others open /admin, each more than the one before it.

    Viewers read; operators change what clients get; owners change who may administer.
    """

    CLIENT = "client"
    VIEWER = "viewer"
    OPERATOR = "operator"
    OWNER = "owner"

    def covers(self, needed: "Role") -> bool:
        """Whether a key of this role opens what needs ``needed``."""
        if Role.CLIENT in {self, needed}:
            return self is needed
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret. ``hint`` is the secret's beginning; times are seconds since the epoch.

    ``models`` None allows all, otherwise it holds names and globs.
    """

    id: str
    name: str
    digest: str
    tenant: str
    tier: str = "default"
    role: Role = Role.CLIENT
    models: tuple[str, ...] | None = None
    hint: str = ""
    created: float = 0.0
    expires: float | None = None


def digest_of(secret: str) -> str:
    """The SHA-256 of a secret, in lower-case hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


class KeyStore:
    """The keys table. ``wall_time`` gives seconds since the epoch."""

    def __init__(self, engine: AsyncEngine, wall_time: Callable[[], float]) -> None:
        self._engine = engine
        self._wall_time = wall_time

    async def create(  # noqa: PLR0913 - the columns of a key
        self,
        *,
        name: str,
        tenant: str,
        tier: str = "default",
        role: Role = Role.CLIENT,
        models: tuple[str, ...] | None = None,
        expires: float | None = None,
    ) -> tuple[Key, str]:
        """Make a key; return it with its secret, which is kept nowhere."""
        prefix = "tg-" if role is Role.CLIENT else "tga-"
        secret = prefix + "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))
        key = Key(
            id="key_" + secrets.token_hex(8),
            name=name,
            digest=digest_of(secret),
            tenant=tenant,
            tier=tier,
            role=role,
            models=models,
            hint=secret[:_HINT_LENGTH],
            created=self._wall_time(),
            expires=expires,
        )
        async with self._engine.begin() as connection:
            await connection.execute(keys.insert().values(_row(key)))
            await connection.execute(_NEXT_REVISION)
        return key, secret

    async def list(self, *, tenant: str | None = None) -> list[Key]:
        """All keys, or those of one tenant, oldest first."""
        query = sa.select(keys).order_by(keys.c.created, keys.c.id)
        if tenant is not None:
            query = query.where(keys.c.tenant == tenant)
        async with self._engine.connect() as connection:
            return [_key(row) for row in await connection.execute(query)]

    async def get(self, key_id: str) -> Key | None:
        """The key with this id."""
        async with self._engine.connect() as connection:
            row = (await connection.execute(sa.select(keys).where(keys.c.id == key_id))).one_or_none()
        return None if row is None else _key(row)

    async def delete(self, key_id: str) -> bool:
        """Delete a key; False where there was none."""
        async with self._engine.begin() as connection:
            deleted = await connection.execute(keys.delete().where(keys.c.id == key_id))
            await connection.execute(_NEXT_REVISION)
        return deleted.rowcount > 0

    async def revision(self) -> int:
        """A number that grows with every change, whichever process made it."""
        async with self._engine.connect() as connection:
            number: int = (await connection.execute(_REVISION)).scalar_one()
        return number


_SUBJECT = revisions.c.subject == "keys"
_REVISION = sa.select(revisions.c.number).where(_SUBJECT)
_NEXT_REVISION = revisions.update().where(_SUBJECT).values(number=revisions.c.number + 1)


def _row(key: Key) -> dict[str, object]:
    row = {column.name: getattr(key, column.name) for column in keys.columns}
    return {**row, "role": key.role.value, "models": None if key.models is None else list(key.models)}


def _key(row: sa.Row[tuple[object, ...]]) -> Key:
    fields = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented way to a row as a mapping
    models = fields["models"]
    return Key(
        **{**fields, "role": Role(fields["role"]), "models": None if models is None else tuple(models)}
    )

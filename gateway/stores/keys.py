"""API keys: made at random, shown once, kept as SHA-256 digests.

A key has 190 bits of entropy, so a plain digest is enough: there is nothing for a slow hash to slow.
"""

import hashlib
import secrets
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.settings import Limits
from gateway.stores.audit import GATEWAY, Author, Subject, record
from gateway.stores.database import metadata
from gateway.stores.revisions import Change, changing

SUBJECT = "keys"
"""What the revisions call the keys."""

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
    sa.Column("limits", sa.JSON(none_as_null=True)),
    sa.Column("old_digest", sa.String(64)),
    sa.Column("old_until", sa.Float),
    sa.Index("ix_keys_created", "created", "id"),
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

    ``models`` None allows all, otherwise it holds names and globs. ``limits`` are its own, beside those of
    its tenant and its tier. After a rotation ``old_digest`` opens the same until ``old_until``.
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
    limits: Limits | None = None
    old_digest: str | None = None
    old_until: float | None = None

    def told(self) -> dict[str, Any]:
        """What the audit may tell of it."""
        return {
            "name": self.name,
            "role": self.role.value,
            "tenant": self.tenant,
            "tier": self.tier,
            "models": None if self.models is None else list(self.models),
            "expires": self.expires,
            "limits": None if self.limits is None else self.limits.written(),
        }


class LastOwner(Exception):
    """Without this key nobody could change who may administer."""


def digest_of(secret: str) -> str:
    """The SHA-256 of a secret, in lower-case hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


class KeyStore:
    """The keys table; every change is audited. ``wall_time`` gives seconds since the epoch."""

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
        limits: Limits | None = None,
        by: Author = GATEWAY,
    ) -> tuple[Key, str]:
        """Make a key; return it with its secret, which is kept nowhere."""
        secret = _new_secret(role)
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
            limits=limits,
        )
        async with changing(self._engine, SUBJECT) as change:
            await change.connection.execute(keys.insert().values(_row(key)))
            await self._record(change, by, "create", None, key)
        return key, secret

    async def list(self, *, tenant: str | None = None) -> Sequence[Key]:
        """All keys, or those of one tenant, oldest first."""
        return await self._select(_of(tenant, None))

    async def page(
        self, *, tenant: str | None, role: Role | None, after: tuple[float, str] | None, limit: int
    ) -> Sequence[Key]:
        """The ``limit`` keys that follow the one created at ``after``'s time with its id, oldest first."""
        query = _of(tenant, role).limit(limit)
        if after is not None:
            query = query.where(sa.tuple_(keys.c.created, keys.c.id) > sa.tuple_(*after))
        return await self._select(query)

    async def count(self, *, tier: str) -> int:
        """How many keys are in this tier."""
        query = sa.select(sa.func.count()).select_from(keys).where(keys.c.tier == tier)
        async with self._engine.connect() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def get(self, key_id: str) -> Key | None:
        """The key with this id."""
        async with self._engine.connect() as connection:
            return await _get(connection, key_id)

    async def update(self, key_id: str, changes: Mapping[str, Any], by: Author = GATEWAY) -> Key | None:
        """Change some fields of a key; None where there is none."""
        return await self._replace(key_id, lambda key: replace(key, **changes), "update", by)

    async def rotate(self, key_id: str, grace: float = 0.0, by: Author = GATEWAY) -> tuple[Key, str] | None:
        """Give a key another secret; the one it had opens the same for ``grace`` seconds more."""
        secret = ""

        def rotated(key: Key) -> Key:
            nonlocal secret
            secret = _new_secret(key.role)
            fresh = replace(key, digest=digest_of(secret), hint=secret[:_HINT_LENGTH])
            if grace <= 0:
                return replace(fresh, old_digest=None, old_until=None)
            return replace(fresh, old_digest=key.digest, old_until=self._wall_time() + grace)

        key = await self._replace(key_id, rotated, "rotate", by)
        return None if key is None else (key, secret)

    async def delete(self, key_id: str, by: Author = GATEWAY, *, keep_owner: bool = False) -> bool:
        """Delete a key; False where there was none.

        ``keep_owner`` raises LastOwner where no other owner's key would be left that opens anything.
        """
        async with changing(self._engine, SUBJECT) as change:
            key = await _get(change.connection, key_id)
            if key is None:
                return False
            if keep_owner and key.role is Role.OWNER and not await self._has_other_owner(change, key_id):
                raise LastOwner
            await change.connection.execute(keys.delete().where(keys.c.id == key_id))
            await self._record(change, by, "delete", key, None)
        return True

    async def _select(self, query: sa.Select[tuple[Any, ...]]) -> Sequence[Key]:
        async with self._engine.connect() as connection:
            return [_key(row) for row in await connection.execute(query)]

    async def _has_other_owner(self, change: Change, key_id: str) -> bool:
        valid = sa.or_(keys.c.expires.is_(None), keys.c.expires > self._wall_time())
        owners = sa.select(keys.c.id).where(keys.c.role == Role.OWNER.value, valid)
        return (await change.connection.execute(owners.where(keys.c.id != key_id))).first() is not None

    async def _replace(
        self, key_id: str, changed: Callable[[Key], Key], action: str, by: Author
    ) -> Key | None:
        async with changing(self._engine, SUBJECT) as change:
            before = await _get(change.connection, key_id)
            if before is None:
                return None
            after = changed(before)
            await change.connection.execute(keys.update().where(keys.c.id == key_id).values(_row(after)))
            await self._record(change, by, action, before, after)
        return after

    async def _record(
        self, change: Change, by: Author, action: str, before: Key | None, after: Key | None
    ) -> None:
        key = after or before
        assert key is not None  # noqa: S101 - one of the two is given
        await record(
            change.connection,
            self._wall_time(),
            by,
            action,
            subject=Subject.KEY,
            name=key.id,
            before=None if before is None else before.told(),
            after=None if after is None else after.told(),
        )


def _new_secret(role: Role) -> str:
    prefix = "tg-" if role is Role.CLIENT else "tga-"
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))


def _of(tenant: str | None, role: Role | None) -> sa.Select[tuple[Any, ...]]:
    query = sa.select(keys).order_by(keys.c.created, keys.c.id)
    if tenant is not None:
        query = query.where(keys.c.tenant == tenant)
    return query if role is None else query.where(keys.c.role == role.value)


async def _get(connection: AsyncConnection, key_id: str) -> Key | None:
    row = (await connection.execute(sa.select(keys).where(keys.c.id == key_id))).one_or_none()
    return None if row is None else _key(row)


def _row(key: Key) -> dict[str, object]:
    row = {column.name: getattr(key, column.name) for column in keys.columns}
    models = None if key.models is None else list(key.models)
    limits = None if key.limits is None else key.limits.written()
    return {**row, "role": key.role.value, "models": models, "limits": limits}


def _key(row: sa.Row[tuple[Any, ...]]) -> Key:
    fields = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's documented way to a row as a mapping
    models, limits = fields["models"], fields["limits"]
    return Key(
        **{
            **fields,
            "role": Role(fields["role"]),
            "models": None if models is None else tuple(models),
            "limits": None if limits is None else Limits.model_validate(limits),
        }
    )

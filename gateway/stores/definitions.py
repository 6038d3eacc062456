"""Tiers and tenants that operators defined, each with the version that it has after its last change.

A version is the revision of the subject at that change: it grows over deletions too, so no two states of
one name ever share a version.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.settings import Tenant, Tier
from gateway.stores.audit import GATEWAY, Author, Subject, record
from gateway.stores.database import metadata
from gateway.stores.revisions import changing

D = TypeVar("D", bound=Tier | Tenant)


def _table(name: str) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("definition", sa.JSON, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("changed", sa.Float, nullable=False),
    )


_TABLES = {Subject.TIER: _table("tiers"), Subject.TENANT: _table("tenants")}


@dataclass(frozen=True, slots=True)
class Stored(Generic[D]):
    """A definition in the database; ``changed`` in seconds since the epoch."""

    definition: D
    version: int
    changed: float


def written(definition: Tier | Tenant) -> dict[str, Any]:
    """A definition in the form that it is written in; what is as by default is left out."""
    found = definition.model_dump(mode="json", exclude_defaults=True)
    limits = definition.limits.written()
    return {**found, "limits": limits} if limits else found


class Definitions(Generic[D]):
    """One table of definitions; every change is audited.

    ``parse`` reads what ``written`` wrote; ``wall_time`` gives seconds since the epoch.
    """

    def __init__(
        self, engine: AsyncEngine, wall_time: Callable[[], float], parse: Callable[[Any], D], subject: Subject
    ) -> None:
        self._engine = engine
        self._wall_time = wall_time
        self._parse = parse
        self._subject = subject
        self._table = _TABLES[subject]

    async def all(self) -> Mapping[str, Stored[D]]:
        """Every definition by its name."""
        async with self._engine.connect() as connection:
            rows = await connection.execute(sa.select(self._table).order_by(self._table.c.name))
            return {row.name: self._stored(row) for row in rows}

    async def get(self, name: str) -> Stored[D] | None:
        """The definition of this name."""
        async with self._engine.connect() as connection:
            return await self._get(connection, name)

    async def change(
        self, name: str, decide: Callable[[Stored[D] | None], D | None], by: Author = GATEWAY
    ) -> Stored[D] | None:
        """Replace what is stored by what ``decide`` makes of it; None deletes.

        Nobody else changes it meanwhile. What ``decide`` raises leaves everything as it was.
        """
        at = self._wall_time()
        table = self._table
        async with changing(self._engine, table.name) as change:
            before = await self._get(change.connection, name)
            definition = decide(before)
            after = None if definition is None else written(definition)
            row = {"definition": after, "version": change.revision, "changed": at}
            if definition is None:
                statement: sa.Executable = table.delete().where(table.c.name == name)
            elif before is None:
                statement = table.insert().values(name=name, **row)
            else:
                statement = table.update().where(table.c.name == name).values(row)
            await change.connection.execute(statement)
            await record(
                change.connection,
                at,
                by,
                _action(before is not None, definition is not None),
                subject=self._subject,
                name=name,
                before=None if before is None else written(before.definition),
                after=after,
            )
        return None if definition is None else Stored(definition, change.revision, at)

    async def _get(self, connection: AsyncConnection, name: str) -> Stored[D] | None:
        query = sa.select(self._table).where(self._table.c.name == name)
        row = (await connection.execute(query)).one_or_none()
        return None if row is None else self._stored(row)

    def _stored(self, row: sa.Row[tuple[Any, ...]]) -> Stored[D]:
        return Stored(self._parse(row.definition), row.version, row.changed)


def _action(existed: bool, exists: bool) -> str:
    if not exists:
        return "delete"
    return "update" if existed else "create"

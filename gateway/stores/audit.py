"""Who changed what, and when: a row for every write, in the transaction that it tells of.

So there is no write without its row, and no row without its write. No secret and no digest is in it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.stores.database import metadata

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("actor_id", sa.String, nullable=False),
    sa.Column("actor", sa.String, nullable=False),
    sa.Column("role", sa.String, nullable=False),
    sa.Column("request_id", sa.String, nullable=False),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("subject", sa.String, nullable=False),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("before", sa.JSON(none_as_null=True)),
    sa.Column("after", sa.JSON(none_as_null=True)),
    sa.Index("ix_audit_subject", "subject", "name", "number"),
)


class Subject(StrEnum):
    """What was changed."""

    KEY = "key"
    TIER = "tier"
    TENANT = "tenant"
    UPSTREAM = "upstream"
    CONFIGURATION = "configuration"
    CACHE = "cache"


@dataclass(frozen=True, slots=True)
class Author:
    """Who did it: the id, name and role of the key, and the request that asked for it."""

    id: str
    name: str
    role: str
    request_id: str = ""


GATEWAY = Author("", "tidegate", "gateway")
"""Who makes the first keys."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One write. ``before`` None is a creation, ``after`` None a deletion; ``number`` grows."""

    number: int
    at: float
    author: Author
    action: str
    subject: Subject
    name: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries: None leaves a condition out; ``since`` and ``until`` in seconds since the epoch."""

    subject: Subject | None = None
    name: str | None = None
    actor_id: str | None = None
    action: str | None = None
    since: float | None = None
    until: float | None = None
    below: int | None = None


async def record(  # noqa: PLR0913 - the columns of an entry
    connection: AsyncConnection,
    at: float,
    author: Author,
    action: str,
    *,
    subject: Subject,
    name: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Write an entry in the transaction of ``connection``; ``at`` in seconds since the epoch."""
    row = {
        "at": at,
        "actor_id": author.id,
        "actor": author.name,
        "role": author.role,
        "request_id": author.request_id,
        "action": action,
        "subject": subject.value,
        "name": name,
        "before": before,
        "after": after,
    }
    await connection.execute(audit.insert().values(row))


class Audit:
    """The audit table. ``wall_time`` gives seconds since the epoch."""

    def __init__(self, engine: AsyncEngine, wall_time: Callable[[], float]) -> None:
        self._engine = engine
        self._wall_time = wall_time

    async def write(
        self, author: Author, action: str, subject: Subject, name: str = "", *, changes: Sequence[str] = ()
    ) -> None:
        """Write an entry about ``changes`` outside of the database."""
        after = {"changes": list(changes)}
        async with self._engine.begin() as connection:
            await record(
                connection, self._wall_time(), author, action, subject=subject, name=name, after=after
            )

    async def read(self, wanted: Wanted, limit: int) -> list[Entry]:
        """The newest ``limit`` entries that are ``wanted``, newest first."""
        conditions = [
            (audit.c.subject, wanted.subject and wanted.subject.value),
            (audit.c.name, wanted.name),
            (audit.c.actor_id, wanted.actor_id),
            (audit.c.action, wanted.action),
        ]
        query = sa.select(audit).order_by(audit.c.number.desc()).limit(limit)
        query = query.where(*(column == value for column, value in conditions if value is not None))
        if wanted.since is not None:
            query = query.where(audit.c.at >= wanted.since)
        if wanted.until is not None:
            query = query.where(audit.c.at < wanted.until)
        if wanted.below is not None:
            query = query.where(audit.c.number < wanted.below)
        async with self._engine.connect() as connection:
            return [_entry(row) for row in await connection.execute(query)]


def _entry(row: sa.Row[tuple[object, ...]]) -> Entry:
    author = Author(row.actor_id, row.actor, row.role, row.request_id)
    return Entry(
        row.number, row.at, author, row.action, Subject(row.subject), row.name, row.before, row.after
    )

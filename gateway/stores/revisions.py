"""A number for each subject that grows with every change to it, whichever process made the change.

Workers look at the numbers every so often and read again what has changed. Writers of one subject take
turns at its number, so each sees what the one before it left, and later numbers are later changes.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.stores.database import metadata

revisions = sa.Table(
    "revisions",
    metadata,
    sa.Column("subject", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Change:
    """A transaction that changes a subject, and the number that the subject has after it."""

    connection: AsyncConnection
    revision: int


@asynccontextmanager
async def changing(engine: AsyncEngine, subject: str) -> AsyncIterator[Change]:
    """A transaction of a writer of ``subject``, who is the only one; an exception takes it all back."""
    async with engine.begin() as connection:
        # A write first: SQLite and PostgreSQL both lock with it, and what is read next is the newest.
        raised = revisions.update().where(revisions.c.subject == subject)
        row = raised.values(number=revisions.c.number + 1).returning(revisions.c.number)
        yield Change(connection, (await connection.execute(row)).scalar_one())


async def current(engine: AsyncEngine) -> dict[str, int]:
    """The number of every subject."""
    async with engine.connect() as connection:
        rows = await connection.execute(sa.select(revisions.c.subject, revisions.c.number))
        return {subject: number for subject, number in rows}  # noqa: C416 - rows aren't pairs to mypy

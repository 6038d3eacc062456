"""The usage ledger as it is read: sums of whole days from the daily table, and single rows.

Sums are read from a few rows for each day, however many requests there were. Single rows come in pages,
each after a cursor, so that nobody's reading holds the database for long.
"""

import base64
import binascii
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.stores.ledger import FLOPS, SUMS, days, ledger

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Period:
    """Days in UTC, both of them included."""

    start: date
    end: date


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows: those of a time, in seconds since the epoch, whose columns have these values."""

    since: float
    until: float
    matching: Mapping[str, str] = field(default_factory=dict)


class BadCursor(ValueError):
    """The cursor wasn't one of ours."""


class UsageReader:
    """Reads the ledger of all workers."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def sums(
        self, period: Period, by: Sequence[str], matching: Mapping[str, str], *, most: int | None = None
    ) -> list[Row]:
        """The sums of a period by these columns, in their order; all of it in one row where ``by`` is empty.

        ``most`` bounds how many rows come back.
        """
        groups = [days.c[name] for name in by]
        totals = [sa.func.coalesce(sa.func.sum(days.c[name]), 0).label(name) for name in SUMS]
        query = sa.select(*groups, *totals).where(days.c.day.between(period.start, period.end))
        query = query.where(*(days.c[name] == value for name, value in matching.items()))
        query = query.group_by(*groups).order_by(*groups).limit(most)
        async with self._engine.connect() as connection:
            found = (await connection.execute(query)).mappings().all()
        return [{name: _whole(name, value) for name, value in row.items()} for row in found]

    async def page(
        self, selection: Selection, *, most: int, cursor: str | None = None
    ) -> tuple[list[Row], str | None]:
        """Rows, the newest first, and the cursor to go on after them. Raises BadCursor."""
        query = sa.select(ledger).where(ledger.c.at >= selection.since, ledger.c.at < selection.until)
        query = query.where(*(ledger.c[name] == value for name, value in selection.matching.items()))
        if cursor is not None:
            query = query.where(sa.tuple_(ledger.c.at, ledger.c.id) < sa.tuple_(*_read(cursor)))
        query = query.order_by(ledger.c.at.desc(), ledger.c.id.desc()).limit(most + 1)
        async with self._engine.connect() as connection:
            found: list[Row] = [dict(row) for row in (await connection.execute(query)).mappings()]
        if len(found) <= most:
            return found, None
        return found[:most], _cursor(found[most - 1])

    async def pages(self, selection: Selection, *, of: int = 1000) -> AsyncIterator[list[Row]]:
        """All rows, page by page."""
        cursor: str | None = None
        while True:
            rows, cursor = await self.page(selection, most=of, cursor=cursor)
            yield rows
            if cursor is None:
                return


def _whole(name: str, value: Any) -> Any:
    """PostgreSQL's sums of whole numbers are decimal ones."""
    return int(value) if name in SUMS and name != FLOPS else value


def _cursor(row: Row) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([row["at"], row["id"]])).decode().rstrip("=")


def _read(cursor: str) -> tuple[float, str]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        at, row_id = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if not isinstance(row_id, str) or "\0" in row_id:
            raise BadCursor
        return float(at), row_id
    except (binascii.Error, orjson.JSONDecodeError, ValueError, TypeError) as error:
        raise BadCursor from error

"""The usage ledger in the database: what each finished request used, and the sums of each day.

A row has an id of the gateway's own making, and rows are written with their share of the daily sums in one
transaction. So a batch is there as a whole or not at all, and one that is written again, since nobody knows
whether it came through, finds its rows there and changes nothing.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.stores.database import metadata
from gateway.stores.uninterrupted import uninterrupted
from policies import errors
from policies.service import CANCELLED, OK

ANSWER = "answer"
EXTRA = "extra"
"""Kinds of rows: a request, and an attempt that was billed beside its answer."""

ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("request", sa.String, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("requests", sa.Integer, nullable=False),
    sa.Column("tenant", sa.String, nullable=False),
    sa.Column("key_id", sa.String, nullable=False),
    sa.Column("tier", sa.String, nullable=False),
    sa.Column("model", sa.String, nullable=False),
    sa.Column("upstream", sa.String, nullable=False),
    sa.Column("served_model", sa.String, nullable=False),
    sa.Column("operation", sa.String, nullable=False),
    sa.Column("outcome", sa.String, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("stream", sa.Boolean, nullable=False),
    sa.Column("cache_hit", sa.Boolean, nullable=False),
    sa.Column("input", sa.BigInteger, nullable=False),
    sa.Column("output", sa.BigInteger, nullable=False),
    sa.Column("cached_input", sa.BigInteger, nullable=False),
    sa.Column("reasoning", sa.BigInteger, nullable=False),
    sa.Column("estimated", sa.Boolean, nullable=False),
    sa.Column("cost", sa.BigInteger),
    sa.Column("energy", sa.BigInteger),
    sa.Column("measured", sa.Boolean, nullable=False),
    sa.Column("energy_wasted", sa.BigInteger, nullable=False),
    sa.Column("flops", sa.Float),
    sa.Column("duration", sa.Float, nullable=False),
    sa.Column("first_token", sa.Float),
    sa.Index("ix_ledger_at", "at", "id"),
    sa.Index("ix_ledger_tenant_at", "tenant", "at"),
    sa.Index("ix_ledger_request", "request"),
)

GROUPS = ("day", "tenant", "key_id", "tier", "model", "upstream", "served_model")
FLOPS = "flops"
"""The one sum that isn't of whole numbers: it outgrows them."""

SUMS = (
    "requests",
    "refused",
    "failed",
    "cancelled",
    "cache_hits",
    "estimated",
    "unpriced",
    "input",
    "output",
    "cached_input",
    "reasoning",
    "cost",
    "energy",
    "energy_measured",
    "energy_wasted",
    FLOPS,
)

days = sa.Table(
    "ledger_days",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("day", sa.Date, nullable=False),
    *(sa.Column(name, sa.String, nullable=False) for name in GROUPS[1:]),
    *(sa.Column(name, sa.Float if name == FLOPS else sa.BigInteger, nullable=False) for name in SUMS),
    sa.Index("ix_ledger_days_day", "day"),
    sa.Index("ix_ledger_days_tenant_day", "tenant", "day"),
)

_DAY = 86400


def _names_below(*classes: type[errors.GatewayError]) -> frozenset[str]:
    names = {kind.__name__ for kind in classes}
    return frozenset(names.union(*(_names_below(*kind.__subclasses__()) for kind in classes)))


REFUSALS = _names_below(errors.CallerError, errors.Throttled, errors.UpstreamRejected)
"""Outcomes that are the caller's to mend or to wait for; whatever else isn't an answer is a failure."""


class Wasted(NamedTuple):
    """An attempt at an upstream that gave no answer, and what energy it took by estimate."""

    upstream: str
    energy: int


@dataclass(slots=True)
class Entry:
    """A row. ``at`` is in seconds since the epoch, times are in seconds, ``cost`` in ``prices.UNIT``.

    ``energy`` is in ``energy.UNIT``, that of ``wasted`` attempts, which gave no answer, included.

    ``requests`` is how many it stands for: several where alike ones were refused, none for an extra.
    ``route`` is the configured name behind ``model``. What nobody did or knows is empty, or None.
    """

    at: float
    request: str
    tenant: str
    key_id: str
    tier: str
    operation: str
    outcome: str
    status: int
    duration: float
    model: str = ""
    route: str = ""
    stream: bool = False
    first_token: float | None = None
    upstream: str = ""
    served_model: str = ""
    input: int = 0
    output: int = 0
    cached_input: int = 0
    reasoning: int = 0
    estimated: bool = False
    cost: int | None = 0
    energy: int = 0
    measured: bool = False
    flops: float | None = None
    wasted: Sequence[Wasted] = ()
    cache_hit: bool = False
    kind: str = ANSWER
    requests: int = 1
    id: str = ""

    @property
    def refused(self) -> bool:
        """Whether the caller was told to mend it, or to wait."""
        return self.outcome in REFUSALS

    @property
    def energy_wasted(self) -> int:
        """The part of the energy that brought no answer."""
        return sum(attempt.energy for attempt in self.wasted)


class LedgerStore:
    """The tables of the ledger, as they are written."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        insert = ledger.insert().compile(dialect=engine.dialect)
        self._insert = str(insert)
        self._values = attrgetter(*(insert.positiontup or ()))
        upsert = postgresql.insert(days) if engine.dialect.name == "postgresql" else sqlite.insert(days)
        self._add_up = upsert.on_conflict_do_update(
            index_elements=[days.c.id],
            set_={name: days.c[name] + upsert.excluded[name] for name in SUMS},
        )

    @uninterrupted
    async def write(self, entries: Sequence[Entry]) -> None:
        """Write all of them, or find that they are there already. Raises SQLAlchemyError and OSError."""
        # Past SQLAlchemy's treatment of each value, which takes longer than the database.
        rows = [self._values(entry) for entry in entries]
        try:
            async with self._engine.begin() as connection:
                await connection.exec_driver_sql(self._insert, rows)
                await connection.execute(self._add_up, daily_sums(entries))
        except IntegrityError:
            if not await self._has(entries[0].id):
                raise

    @uninterrupted
    async def prune(self, before: float, *, at_once: int = 5000) -> int:
        """Delete the oldest of the rows from before that time; how many. The daily sums stay."""
        oldest = sa.select(ledger.c.id).where(ledger.c.at < before).order_by(ledger.c.at).limit(at_once)
        async with self._engine.begin() as connection:
            return (await connection.execute(ledger.delete().where(ledger.c.id.in_(oldest)))).rowcount

    async def _has(self, entry_id: str) -> bool:
        async with self._engine.connect() as connection:
            return await _exists(connection, entry_id)


async def _exists(connection: AsyncConnection, entry_id: str) -> bool:
    found = await connection.execute(sa.select(ledger.c.id).where(ledger.c.id == entry_id))
    return found.first() is not None


def daily_sums(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """The entries' rows of the table of days, each of which adds to what is there.

    A name that a client made up isn't a group of its own unless somebody answered to it. The order is the
    same for every writer, so that two of them don't wait for each other.
    """
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for entry in entries:
        model = entry.model if entry.served_model else entry.route
        names = (entry.tenant, entry.key_id, entry.tier, model, entry.upstream, entry.served_model)
        group = (day_of(entry.at), *names)
        row = found.get(group)
        if row is None:
            row = found[group] = {"id": _digest(group), **dict(zip(GROUPS, group, strict=True))}
            row |= dict.fromkeys(SUMS, 0)
        _add(row, entry)
    return sorted(found.values(), key=lambda row: str(row["id"]))


def _add(row: dict[str, Any], entry: Entry) -> None:
    row["requests"] += entry.requests
    if entry.kind == ANSWER and entry.outcome != OK:
        ending = "cancelled" if entry.outcome == CANCELLED else "refused" if entry.refused else "failed"
        row[ending] += entry.requests
    row["cache_hits"] += entry.cache_hit
    row["estimated"] += entry.estimated
    row["unpriced"] += entry.cost is None
    row["input"] += entry.input
    row["output"] += entry.output
    row["cached_input"] += entry.cached_input
    row["reasoning"] += entry.reasoning
    row["cost"] += entry.cost or 0
    if entry.energy:
        wasted = entry.energy_wasted
        row["energy"] += entry.energy
        row["energy_measured"] += entry.measured and entry.energy - wasted
        row["energy_wasted"] += wasted
        row[FLOPS] += entry.flops or 0.0


def day_of(at: float) -> date:
    """The day, in UTC, of a time in seconds since the epoch."""
    return _day(int(at // _DAY))


@lru_cache(maxsize=16)
def _day(number: int) -> date:
    return datetime.fromtimestamp(number * _DAY, UTC).date()


def _digest(group: tuple[Any, ...]) -> str:
    """A key of a fixed length, whatever the length of the names."""
    return hashlib.blake2b("\0".join(map(str, group)).encode(), digest_size=16).hexdigest()

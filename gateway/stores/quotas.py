"""Quotas of days and months, kept in the database: a restart must not give everybody a new one.

Counts are kept in memory and written behind, once a second. What rolls (a minute's requests, slots)
isn't worth it: it is empty again before a restart is over.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.stores.database import AWAY, metadata, reason
from gateway.stores.uninterrupted import uninterrupted
from policies.ports import BucketStore, Clock
from policies.ratelimit import Bucket, Charge, Level, Verdict

_LOG = logging.getLogger(__name__)
_LONGEST_PERIOD = 32 * 86400.0

quotas = sa.Table(
    "quotas",
    metadata,
    sa.Column("bucket", sa.String, primary_key=True),
    sa.Column("amount", sa.Float, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)

# Several workers write: the one that looked last knows best.
_SAVE = sa.text(
    "INSERT INTO quotas (bucket, amount, at) VALUES (:bucket, :amount, :at) "
    "ON CONFLICT (bucket) DO UPDATE SET amount = excluded.amount, at = excluded.at "
    "WHERE excluded.at >= quotas.at"
)


class QuotaStore:
    """The quotas table. ``wall_time`` gives seconds since the epoch."""

    def __init__(self, engine: AsyncEngine, wall_time: Callable[[], float]) -> None:
        self._engine = engine
        self._wall_time = wall_time

    async def load(self) -> dict[str, Level]:
        """What the quotas of periods that may still run held; older ones are deleted."""
        oldest = self._wall_time() - _LONGEST_PERIOD
        async with self._engine.begin() as connection:
            await connection.execute(quotas.delete().where(quotas.c.at < oldest))
            rows = await connection.execute(sa.select(quotas))
            return {row.bucket: Level(row.amount, row.at) for row in rows}

    @uninterrupted
    async def save(self, levels: Mapping[str, Level]) -> None:
        """Write what these quotas hold."""
        if levels:
            # In the same order for every writer, so that two of them don't wait for each other.
            rows = [
                {"bucket": key, "amount": level.amount, "at": level.at}
                for key, level in sorted(levels.items())
            ]
            async with self._engine.begin() as connection:
                await connection.execute(_SAVE, rows)


class KeptQuotas:
    """A BucketStore that notes which quotas change in the ``inner`` one. Run ``keep`` as a task beside it.

    ``level`` tells what a bucket of the inner one held when it was last written to.
    """

    def __init__(
        self,
        inner: BucketStore,
        quotas: QuotaStore,
        *,
        level: Callable[[str], Level | None],
        clock: Clock,
    ) -> None:
        self._inner = inner
        self._quotas = quotas
        self._level = level
        self._clock = clock
        self._changed: set[str] = set()

    async def take(self, holder: str, charges: Sequence[Charge]) -> Verdict:
        verdict = await self._inner.take(holder, charges)
        if verdict.admitted:
            self._note(charges)
        return verdict

    def settle(self, holder: str, charges: Sequence[Charge], taken_at: float) -> None:
        self._inner.settle(holder, charges, taken_at)
        self._note(charges)

    async def renew(self, holder: str, buckets: Sequence[Bucket]) -> None:
        await self._inner.renew(holder, buckets)

    async def keep(self, every: float = 1.0) -> None:
        """Save what has changed ``every`` so many seconds, until cancelled."""
        while True:
            await self._clock.sleep(every)
            try:
                await self.save()
            except AWAY as error:
                _LOG.warning("quotas could not be saved, it is tried again: %s", reason(error))

    async def save(self) -> None:
        """Save what has changed since the last time."""
        changed, self._changed = self._changed, set()
        levels = {key: level for key in changed if (level := self._level(key)) is not None}
        try:
            await self._quotas.save(levels)
        except (*AWAY, asyncio.CancelledError):
            self._changed |= changed
            raise

    def _note(self, charges: Sequence[Charge]) -> None:
        for bucket, _ in charges:
            if bucket.limit.is_quota:
                self._changed.add(bucket.key)

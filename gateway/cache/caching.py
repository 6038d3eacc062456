"""The cache of one worker: its tiers, its leases, and the purges that it follows."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.cache.books import BookUnreachable, DatabaseBook, RedisBook
from gateway.cache.disk import DiskTier
from gateway.cache.leases import RedisLeases
from gateway.cache.memory import byte_cache
from gateway.cache.purges import Purge, PurgeBook, Purges
from gateway.cache.redis import RedisTier
from gateway.cache.tiers import MEMORY, SharedTier, TieredStore, TierOptions, TierSize
from gateway.parts import Parts
from gateway.settings.caching import Cache
from gateway.stores.redis.connect import Client, close, connect
from policies.cache.exact import Spawn
from policies.facts import CacheEvicted
from policies.ports import Meter

if TYPE_CHECKING:
    from gateway.cache.semantic.semantics import Semantics

_PATIENCE = 5.0
_HORIZON = 90 * 86400.0
"""No answer is kept for longer than that, in seconds, so older purges cover nothing."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What replicas have in common. ``redis`` is None where there is none.

    ``keeps`` tells that it outlives the gateway, and may hold answers; else it only holds leases.
    """

    database: AsyncEngine
    redis: Client | None = None
    keeps: bool = False


class Caching:
    """``store`` has the answers, ``leases`` tell whose turn it is to ask. Run ``keep`` as a task.

    ``meter`` hears what routes' caches do.
    """

    def __init__(
        self, settings: Cache, neighbours: Neighbours, parts: Parts, *, spawn: Spawn, meter: Meter
    ) -> None:
        self._settings = settings
        self._semantics: Semantics | None = None
        self._parts = parts
        self.spawn = spawn
        self.meter = meter
        redis = neighbours.redis
        self.purges = Purges()
        self.leases = (
            None
            if redis is None
            else RedisLeases(redis, owner=f"{parts.rng.getrandbits(64):016x}", clock=parts.clock)
        )
        self._own = (
            None if settings.redis is None else connect(settings.redis.get_secret_value(), timeout=_PATIENCE)
        )
        self._book: PurgeBook = DatabaseBook(neighbours.database)
        self._shared: SharedTier | None = None
        keeper = self._own or (redis if neighbours.keeps else None)
        if keeper is not None:
            self._book = RedisBook(keeper)
            self._shared = RedisTier(
                keeper,
                max_entry=settings.max_entry,
                clock=parts.clock,
                wall_time=parts.wall_time,
                meter=parts.meter,
            )
        elif settings.disk:
            self._shared = DiskTier(
                Path(settings.path), settings.disk, wall_time=parts.wall_time, meter=parts.meter
            )
        self.store = TieredStore(
            byte_cache(settings.policy, settings.memory, self._evicted),
            self._shared,
            TierOptions(settings.max_entry),
            purges=self.purges,
            wall_time=parts.wall_time,
            spawn=spawn,
            meter=parts.meter,
        )

    async def follow(self) -> None:
        """Forget what was purged since the last time, at whichever replica."""
        with suppress(BookUnreachable):  # as are the answers that it is about
            purges = await self._book.read(self.purges.since)
            for purge in self.purges.learn(purges, self._parts.wall_time() - _HORIZON):
                self._forget(purge)

    def semantics(self) -> "Semantics":
        """Made for the first route that wants it: it takes packages that an installation may lack."""
        if self._semantics is None:
            from gateway.cache.semantic.semantics import Semantics  # noqa: PLC0415 - as said

            self._semantics = Semantics(self._settings, self.store, self._parts, self.spawn, self.meter)
        return self._semantics

    async def purge(
        self, tenant: str | None = None, model: str | None = None, key: str | None = None
    ) -> None:
        """Forget the answers that all of these name, here and at every replica.

        Raises BookUnreachable.
        """
        now = self._parts.wall_time()
        purge = Purge(now, tenant, model, key)
        horizon = now - _HORIZON
        await self._book.add(purge, horizon)
        for news in self.purges.learn([purge], horizon):
            self._forget(news)
        if self._shared is not None:
            self.spawn(self._shared.discard(purge))

    async def sizes(self) -> Mapping[str, TierSize]:
        """How full each tier is that can tell."""
        shared = None if self._shared is None else await self._shared.size()
        sizes = {MEMORY: self.store.size()}
        return sizes if self._shared is None or shared is None else {**sizes, self._shared.name: shared}

    async def keep(self) -> None:
        """Renew the leases that are held, until cancelled."""
        if self.leases is not None:
            await self.leases.keep()

    async def aclose(self) -> None:
        """Finish writing."""
        await self.store.flush()
        if self._shared is not None:
            await self._shared.close()
        if self._own is not None:
            await close(self._own)
        if self._semantics is not None:
            self._semantics.close()

    def _forget(self, purge: Purge) -> None:
        self.store.forget(purge)
        if purge.everything and self._semantics is not None:
            self._semantics.clear()

    def _evicted(self, count: int) -> None:
        self._parts.meter.emit(CacheEvicted(MEMORY, count, "full"))

"""Single flight among replicas: one of them asks, the others wait until they see its answer in the cache.

After the lease of "Scaling Memcache at Facebook" (NSDI 2013): who finds no answer takes a lease on its key,
and who finds the lease taken looks again shortly. A lease expires unless it is renewed, so a replica that
dies with one holds the others up for seconds. A stream is worth waiting for only briefly, since
the others would get its first words when it has ended.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from policies.cache.answer import CachedAnswer, opened
from policies.cache.exact import Spawn
from policies.cache.reuse import CacheOptions, Freshness, freshness
from policies.facts import CallCoalesced
from policies.opening import opening
from policies.ports import CacheStore, Clock, Leases, Meter
from policies.service import CacheState, CacheStatus, Call, Reply, Service

_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.2


@dataclass(frozen=True, slots=True)
class ReplicaOptions:
    """How long to wait for another replica's answer, in seconds: for a whole body, and for a stream."""

    whole: float = 60.0
    stream: float = 2.0

    def __post_init__(self) -> None:
        if min(self.whole, self.stream) < 0:
            raise ValueError("a wait can't be below 0 s")


class Replicas:
    """Layer below ``Coalesce``: asks where no other replica is asking, else takes its answer.

    How long that answer was waited for is added to ``call.coalesced``.
    """

    def __init__(  # noqa: PLR0913 - its ports
        self,
        inner: Service,
        options: CacheOptions,
        patience: ReplicaOptions,
        *,
        store: CacheStore,
        leases: Leases,
        clock: Clock,
        wall_time: Callable[[], float],
        spawn: Spawn,
        meter: Meter,
    ) -> None:
        self._inner = inner
        self._options = options
        self._patience = patience
        self._store = store
        self._leases = leases
        self._clock = clock
        self._wall_time = wall_time
        self._spawn = spawn
        self._meter = meter

    @opening
    async def __call__(self, call: Call) -> AsyncGenerator[Reply]:
        key = call.fingerprint
        if key is None or call.directives.no_cache:
            async with self._inner(call) as reply:
                yield reply
            return
        leads = await self._acquire(key)
        pause = _FIRST_PAUSE
        try:
            found = await self._fresh(call, key)
            asked = self._clock.now()
            until = asked + (self._patience.stream if call.stream else self._patience.whole)
            while found is None and not leads and self._clock.now() < until:
                await self._clock.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                leads = await self._acquire(key)
                found = await self._fresh(call, key)
            call.coalesced += self._clock.now() - asked
            if found is None:
                async with self._inner(call) as reply:
                    yield reply
                return
            self._meter.emit(CallCoalesced(call, "replicas"))
            answer, tier = found
            age = answer.age(self._wall_time())
            status = CacheStatus(CacheState.HIT, age, tier, answer.usage)
            async with opened(answer, call, status, pace=self._options.pace, clock=self._clock) as reply:
                yield reply
        finally:
            if leads:
                self._spawn(self._give_back(key))

    async def _acquire(self, key: str) -> bool:
        try:
            return await self._leases.acquire(key)
        except asyncio.CancelledError:
            self._spawn(self._leases.release(key))
            raise

    async def _fresh(self, call: Call, key: str) -> tuple[CachedAnswer, str] | None:
        found = await self._store.get(key)
        if found is None:
            return None
        age = found[0].age(self._wall_time())
        return found if freshness(age, self._options, call.directives) is Freshness.FRESH else None

    async def _give_back(self, key: str) -> None:
        """Only when the others can see the answer."""
        await self._store.settled(key)
        await self._leases.release(key)

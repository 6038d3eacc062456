"""What becomes of shared limits while the shared store is away: each replica counts its own part.

A replica goes on from what it last knew, with its share of every limit (the amount divided by the
replicas), so that all of them together stay near the limit without a word between them. Limits that
fail closed let nothing pass: better no answer than an unpaid bill. The store is tried again beside
the calls; once it is back it is told at least what was counted here in the meantime, and every
count is exact again. That a limiter must not take the service down with it is a rule of Stripe's
("Scaling your API with rate limiters", 2017).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from gateway.stores.redis.buckets import RedisStore, StoreUnavailable
from policies.facts import StoreChanged
from policies.memory import MemoryStore
from policies.ports import Clock, Meter
from policies.ratelimit import Bucket, Charge, Level, Limit, Verdict

_MOST_OWED = 10_000


@dataclass(frozen=True, slots=True)
class FallbackOptions:
    """``retry`` is the pause between two tries to reach the store, in seconds."""

    retry: float = 1.0

    def __post_init__(self) -> None:
        if self.retry <= 0:
            raise ValueError("retry must be above zero seconds.")


class FallbackStore:
    """A BucketStore that never fails: the shared one while it answers, else a part of each limit here.

    ``replicas`` tells how many processes share the limits. ``outage`` is why the store is away, or None.
    """

    def __init__(  # noqa: PLR0913 - its ports
        self,
        shared: RedisStore,
        *,
        replicas: Callable[[], int],
        clock: Clock,
        wall_time: Callable[[], float],
        meter: Meter,
        options: FallbackOptions | None = None,
    ) -> None:
        self._shared = shared
        self._replicas = replicas
        self._clock = clock
        self._wall_time = wall_time
        self._meter = meter
        self._options = options or FallbackOptions()
        self._offset = 0.0
        self._local = MemoryStore(self._now)
        self._shares = 1
        self._since = 0.0
        self._owed: deque[tuple[str, Sequence[Charge], float]] = deque(maxlen=_MOST_OWED)
        self._return: asyncio.Task[None] | None = None
        self.outage: str | None = None

    async def take(self, holder: str, charges: Sequence[Charge]) -> Verdict:
        if self.outage is None:
            try:
                verdict = await self._shared.take(holder, charges)
            except StoreUnavailable as error:
                self._degrade(str(error))
            else:
                self._offset = verdict.at - self._wall_time()
                return verdict
        return await self._take_here(holder, charges)

    def settle(self, holder: str, charges: Sequence[Charge], taken_at: float) -> None:
        if self.outage is None:
            self._shared.settle(holder, charges, taken_at)
            return
        if taken_at < self._since:  # of what was taken there, only this replica's part is counted here
            self._owe(holder, charges, taken_at)
            charges = [Charge(charge.bucket, charge.cost / self._shares) for charge in charges]
        self._local.settle(holder, self._here(charges), taken_at)

    async def renew(self, holder: str, buckets: Sequence[Bucket]) -> None:
        if self.outage is None:
            try:
                await self._shared.renew(holder, buckets)
            except StoreUnavailable as error:
                self._degrade(str(error))
            else:
                return
        await self._local.renew(holder, buckets)

    async def aclose(self) -> None:
        """Stop looking for the store, and close it."""
        if self._return is not None:
            self._return.cancel()
            await asyncio.gather(self._return, return_exceptions=True)
        await self._shared.aclose()

    def _now(self) -> float:
        """The store's time, as far as it is known: this replica's own clock may be off."""
        return self._wall_time() + self._offset

    async def _take_here(self, holder: str, charges: Sequence[Charge]) -> Verdict:
        here = self._here(charges)
        if any(charge.bucket.limit.fails_closed for charge in charges):
            now = self._now()
            held = [self._local.amount(charge.bucket, now) for charge in here]
            return Verdict(False, now, here, held, outage=self._options.retry)
        return await self._local.take(holder, here)

    def _here(self, charges: Sequence[Charge]) -> list[Charge]:
        """The same charges to this replica's part of the buckets, which start from what was known."""
        found = []
        for charge in charges:
            bucket = Bucket(charge.bucket.key, _share(charge.bucket.limit, self._shares, charge.cost))
            known = self._shared.seeds.get(bucket.key)
            if known is not None:
                self._local.restore(bucket, Level(known.amount / self._shares, known.at))
            found.append(Charge(bucket, charge.cost))
        return found

    def _owe(self, holder: str, charges: Sequence[Charge], taken_at: float) -> None:
        """Slots that were taken there and are to be given back once it is there again.

        Other corrections aren't: whether the store still knows the charge can't be told.
        """
        slots = [charge for charge in charges if charge.bucket.limit.window is None]
        if slots:
            self._owed.append((holder, slots, taken_at))

    def _degrade(self, why: str) -> None:
        if self.outage is not None:
            return
        self.outage = why
        self._shares = max(1, self._replicas())
        self._since = self._now()
        self._local.clear()
        self._meter.emit(StoreChanged("redis", True, why))
        self._return = asyncio.get_running_loop().create_task(self._look_for_it())

    async def _look_for_it(self) -> None:
        while True:
            await self._clock.sleep(self._options.retry)
            try:
                await self._shared.probe()
            except StoreUnavailable as error:
                self.outage = str(error)
                continue
            break
        for key, level in self._local.levels().items():
            self._shared.seeds.force(key, Level(level.amount * self._shares, level.at))
        self.outage = None
        while self._owed:
            self._shared.settle(*self._owed.popleft())
        self._meter.emit(StoreChanged("redis", False, "it answers"))


@lru_cache(maxsize=4096)
def _share(limit: Limit, shares: int, cost: float) -> Limit:
    """A part of a limit. What fits the whole limit may pass, when nothing else did: it is never "never"."""
    if limit.window is None:
        return replace(limit, amount=float(max(1, int(limit.amount / shares))))
    capacity = max(limit.capacity / shares, min(cost, limit.capacity))
    if limit.rolls:
        return replace(limit, amount=limit.amount / shares, burst=capacity)
    return replace(limit, amount=capacity)

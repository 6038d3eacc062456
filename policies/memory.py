"""Buckets in the process's memory: the store of a single worker, and the specification of every other.

All-or-nothing is plain here: look at every bucket, then write to all of them or to none.
"""

from collections.abc import Callable, Mapping, Sequence

from policies.periods import current
from policies.ratelimit import EMPTY, Bucket, Charge, Level, Verdict, drained

_SWEEP_FROM = 1024
"""Buckets that are empty are forgotten once there are this many, and twice as many as were left then."""


class MemoryStore:
    """A BucketStore. ``now`` tells seconds since the epoch, which days and months need.

    ``before`` is what buckets held when an earlier one ended.
    """

    def __init__(self, now: Callable[[], float], before: Mapping[str, Level] | None = None) -> None:
        self._now = now
        self._before = dict(before or {})
        self._levels: dict[str, tuple[Bucket, Level]] = {}
        self._slots: dict[str, dict[str, float]] = {}
        self._sweep_at = _SWEEP_FROM

    async def take(self, holder: str, charges: Sequence[Charge]) -> Verdict:
        return self.take_at(self._now(), holder, charges)

    def take_at(self, now: float, holder: str, charges: Sequence[Charge]) -> Verdict:
        """``take`` at a given time."""
        amounts = []
        admitted = True
        for bucket, cost in charges:
            limit = bucket.limit
            amount = self.amount(bucket, now)
            amounts.append(amount)
            if amount + cost - limit.capacity > limit.slack:
                admitted = False
        if not admitted:
            return Verdict(False, now, charges, amounts)
        for (bucket, cost), amount in zip(charges, amounts, strict=True):
            if bucket.limit.window is None:
                self._hold(bucket, holder, now)
            else:
                self._write(bucket, amount + cost, now)
        if len(self._levels) > self._sweep_at:
            self._sweep(now)
        return Verdict(True, now, charges, amounts)

    def settle(self, holder: str, charges: Sequence[Charge], taken_at: float) -> None:
        self.settle_at(self._now(), holder, charges, taken_at)

    def settle_at(self, now: float, holder: str, charges: Sequence[Charge], taken_at: float) -> None:
        """``settle`` at a given time. What was reserved in a period that is over does not come back."""
        for bucket, cost in charges:
            limit = bucket.limit
            if limit.window is None:
                self._slots.get(bucket.key, {}).pop(holder, None)
                continue
            if cost < 0 and limit.is_quota and taken_at < current(limit.window, limit.zone, now)[0]:
                continue
            self._write(bucket, max(0.0, self.amount(bucket, now) + cost), now)

    async def renew(self, holder: str, buckets: Sequence[Bucket]) -> None:
        now = self._now()
        for bucket in buckets:
            self._hold(bucket, holder, now)

    def amount(self, bucket: Bucket, now: float) -> float:
        """What the bucket holds, or how many of its slots are taken."""
        if bucket.limit.window is None:
            held = self._slots.get(bucket.key, {})
            for holder in [holder for holder, until in held.items() if until <= now]:
                del held[holder]
            return float(len(held))
        found = self._levels.get(bucket.key)
        level = self._before.get(bucket.key, EMPTY) if found is None else found[1]
        return drained(bucket.limit, level, now)

    def levels(self) -> dict[str, Level]:
        """What every bucket held when it was last written to."""
        return {key: level for key, (_, level) in self._levels.items()}

    def level(self, key: str) -> Level | None:
        """What a bucket held when it was last written to."""
        found = self._levels.get(key)
        return None if found is None else found[1]

    def restore(self, bucket: Bucket, level: Level) -> None:
        """Start a bucket that isn't known yet from a level that somebody else knew."""
        self._levels.setdefault(bucket.key, (bucket, level))

    def clear(self) -> None:
        """Forget everything."""
        self._levels.clear()
        self._before.clear()
        self._slots.clear()

    def _write(self, bucket: Bucket, amount: float, now: float) -> None:
        self._levels[bucket.key] = bucket, Level(amount, now)
        if self._before:
            self._before.pop(bucket.key, None)

    def _hold(self, bucket: Bucket, holder: str, now: float) -> None:
        self._slots.setdefault(bucket.key, {})[holder] = now + bucket.limit.ttl

    def _sweep(self, now: float) -> None:
        self._levels = {
            key: (bucket, level)
            for key, (bucket, level) in self._levels.items()
            if drained(bucket.limit, level, now) > 0
        }
        self._slots = {key: held for key, held in self._slots.items() if held}
        self._sweep_at = max(_SWEEP_FROM, 2 * len(self._levels))

"""Leases: a replica takes a share of a large limit ahead, so that its calls need no round trip.

Doorman's idea (Google, 2016), turned round: capacity is leased for a short time and spent here. What is
leased is charged to the shared bucket at once, so that no sum of replicas passes the limit; what isn't
used is given back. A limit that a lease would be too large a part of stays exact, one script call each.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from policies.ports import BucketStore, Clock
from policies.ratelimit import Bucket, Charge, Dimension, Level, Limit, Verdict, drained

_HOLDER = "lease"
_TOKENS = {Dimension.INPUT, Dimension.OUTPUT, Dimension.TOKENS}


@dataclass(frozen=True, slots=True)
class LeaseOptions:
    """A lease is ``seconds`` of the limit's rate (of a quota, a thousandth) and lasts for ``ttl``.

    A limit whose lease would hold fewer than ``fewest`` calls is not leased. Tokens are leased for
    twice as many at least, since most of an estimate comes back.
    """

    seconds: float = 1.0
    ttl: float = 5.0
    fewest: int = 4

    def __post_init__(self) -> None:
        if min(self.seconds, self.ttl, self.fewest) <= 0:
            raise ValueError("The seconds, the ttl and the fewest calls of a lease must be above zero.")

    def size(self, limit: Limit, cost: float) -> float:
        """How much to lease for calls of this cost, or 0.0 for a limit that stays exact."""
        if limit.window is None or cost <= 0:
            return 0.0
        if limit.rolls:
            least = 2 * self.fewest * cost if limit.dimension in _TOKENS else 0.0
            size = min(max(limit.rate * self.seconds, least), limit.capacity / 16)
        else:
            size = limit.capacity / 1000
        return size if size >= self.fewest * cost else 0.0


@dataclass(slots=True, eq=False)
class _Lease:
    """What is left to spend here. ``amount`` is what the shared bucket held at ``at``, its time."""

    bucket: Bucket
    size: float = 0.0
    left: float = 0.0
    until: float = 0.0
    touched: float = 0.0
    retry_at: float = 0.0
    amount: float = 0.0
    at: float = 0.0
    granted: float = 0.0
    filling: bool = False


class LeasedStore:
    """A BucketStore before a shared one. Run ``keep`` as a task beside it; only buckets in use are leased."""

    def __init__(self, shared: BucketStore, *, clock: Clock, options: LeaseOptions | None = None) -> None:
        self._shared = shared
        self._clock = clock
        self._options = options or LeaseOptions()
        self._leases: dict[str, _Lease] = {}
        self._fillings: set[asyncio.Task[None]] = set()

    async def take(self, holder: str, charges: Sequence[Charge]) -> Verdict:
        now = self._clock.now()
        spent: list[tuple[_Lease, Charge]] = []
        exact: list[Charge] = []
        for charge in charges:
            lease = self._lease(charge, now)
            if lease is not None and lease.left >= charge.cost and now < lease.until:
                spent.append((lease, charge))
            else:
                exact.append(charge)
        known = [self._amount(lease, now) for lease, _ in spent]
        for lease, charge in spent:
            lease.left -= charge.cost
        verdict: Verdict | None = None
        try:
            if exact:
                verdict = await self._shared.take(holder, exact)
        finally:
            if exact and (verdict is None or not verdict.admitted):
                for lease, charge in spent:
                    lease.left += charge.cost
        if verdict is None:
            lease = spent[0][0]
            return Verdict(True, lease.at + now - lease.granted, charges, known)
        if not spent:
            return verdict
        together = [*(charge for _, charge in spent), *verdict.charges]
        return Verdict(verdict.admitted, verdict.at, together, [*known, *verdict.amounts], verdict.outage)

    def settle(self, holder: str, charges: Sequence[Charge], taken_at: float) -> None:
        now = self._clock.now()
        shared: list[Charge] = []
        for charge in charges:
            lease = self._leases.get(charge.bucket.key)
            if lease is None or now >= lease.until or not charge.bucket.limit.rolls:
                shared.append(charge)
                continue
            lease.left -= charge.cost
            if lease.left > 2 * lease.size:
                shared.append(Charge(charge.bucket, lease.size - lease.left))
                lease.left = lease.size
        if shared:
            self._shared.settle(holder, shared, taken_at)

    async def renew(self, holder: str, buckets: Sequence[Bucket]) -> None:
        await self._shared.renew(holder, buckets)

    async def keep(self, every: float = 1.0) -> None:
        """Give back what lies unused, every so many seconds, until cancelled."""
        while True:
            await self._clock.sleep(every)
            self.sweep(self._clock.now())

    def sweep(self, now: float) -> None:
        """Give back what is left of leases that are over, and forget those."""
        for key, lease in list(self._leases.items()):
            if now >= lease.until:
                self._give_back(lease)
                if now - lease.touched > self._options.ttl and not lease.filling:
                    del self._leases[key]

    async def give_back(self) -> None:
        """Give everything back: the process ends."""
        await asyncio.gather(*self._fillings, return_exceptions=True)
        for lease in self._leases.values():
            self._give_back(lease)
        self._leases.clear()

    def _lease(self, charge: Charge, now: float) -> _Lease | None:
        """The lease of a bucket that has one, refilled beside the calls while these keep coming."""
        lease = self._leases.get(charge.bucket.key)
        if lease is None:
            size = self._options.size(charge.bucket.limit, charge.cost)
            if size:
                self._leases[charge.bucket.key] = _Lease(charge.bucket, size, touched=now)
            return None
        if lease.bucket.limit is not charge.bucket.limit:
            lease.bucket = charge.bucket
        busy = now - lease.touched < self._options.seconds
        lease.touched = now
        if now >= lease.until:
            self._give_back(lease)
        if busy and lease.left < lease.size / 2 and now >= lease.retry_at and not lease.filling:
            lease.size = self._options.size(lease.bucket.limit, charge.cost)
            if lease.size:
                lease.filling = True
                task = asyncio.get_running_loop().create_task(self._fill(lease))
                self._fillings.add(task)
                task.add_done_callback(self._fillings.discard)
        return lease

    async def _fill(self, lease: _Lease) -> None:
        try:
            verdict = await self._shared.take(_HOLDER, [Charge(lease.bucket, lease.size)])
            now = self._clock.now()
            if verdict.admitted:
                lease.left += lease.size
                lease.until = now + self._options.ttl
                lease.amount, lease.at, lease.granted = verdict.amounts[0] + lease.size, verdict.at, now
            else:
                lease.retry_at = now + min(verdict.retry_after, self._options.ttl)
        finally:
            lease.filling = False

    def _give_back(self, lease: _Lease) -> None:
        if lease.left:
            self._shared.settle(_HOLDER, [Charge(lease.bucket, -lease.left)], lease.at)
            lease.left = 0.0

    @staticmethod
    def _amount(lease: _Lease, now: float) -> float:
        """What the shared bucket holds, as far as it is known here, but for what is still to be spent."""
        level = Level(lease.amount, lease.at)
        return max(0.0, drained(lease.bucket.limit, level, lease.at + now - lease.granted) - lease.left)

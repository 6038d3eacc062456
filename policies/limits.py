"""Rate limits, the layer: reserve before the call, settle after it, by the arithmetic of ``ratelimit``.

The true cost of a call is known when it ends, and admission can't wait for it: an estimate is reserved
and the difference given back, as a card payment is authorised and then settled. Without that a limit of
tokens is used to a fraction, since callers ask for far more output than comes. All the limits of a call
(requests, tokens, spend, slots; of its key, its tenant and its tier) are taken in one step, so that a
refusal by one burns nothing of the others.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import NamedTuple

from policies.consumption import consumption
from policies.errors import GatewayError, LimitTooSmall, Overloaded, QuotaExhausted, RateLimited
from policies.facts import LimitReached, ReservationSettled
from policies.opening import Opening
from policies.ports import BucketStore, Clock, Meter
from policies.ratelimit import NEVER, Bucket, Charge, Dimension, Verdict, output_cap
from policies.service import Call, Reply, Service, Usage

_AT_ONCE = 16
_NOTHING = Usage()

# A member of an enumeration is looked up each time that it is named by its class.
_REQUESTS, _CONCURRENCY = Dimension.REQUESTS, Dimension.CONCURRENCY
_TOKENS, _INPUT, _OUTPUT = Dimension.TOKENS, Dimension.INPUT, Dimension.OUTPUT


@dataclass(frozen=True, slots=True)
class Allotment:
    """All that limits a caller, worked out once for all of its calls.

    ``output_cap`` is the most tokens of output to reserve where the caller doesn't say how many it wants.
    ``estimated`` tells that some of it depends on tokens, ``priced`` that some of it does on their price.
    """

    buckets: Sequence[Bucket]
    output_cap: float = field(init=False)
    slots: Sequence[Bucket] = field(init=False)
    estimated: bool = field(init=False)
    priced: bool = field(init=False)

    def __post_init__(self) -> None:
        counted = {bucket.limit.dimension for bucket in self.buckets}
        slots = tuple(bucket for bucket in self.buckets if bucket.limit.window is None)
        object.__setattr__(self, "output_cap", output_cap([bucket.limit for bucket in self.buckets]))
        object.__setattr__(self, "slots", slots)
        object.__setattr__(self, "estimated", bool(counted - {_REQUESTS, _CONCURRENCY}))
        object.__setattr__(self, "priced", Dimension.SPEND in counted)


class Claim(NamedTuple):
    """What a call needs: its caller's limits, an estimate of its tokens, and their prices.

    ``estimate`` is the prompt and the most that the answer may take; prices are per token, those of the
    dearest who may answer. ``spent`` tells what an answer really cost, where that depends on who gave it.
    """

    allotment: Allotment
    estimate: Usage = _NOTHING
    input_price: float = 0.0
    output_price: float = 0.0
    spent: Callable[[Reply, Usage], float] | None = None

    def cost(self, dimension: Dimension, usage: Usage) -> float:
        """What a call with this usage costs of a dimension."""
        if dimension is _REQUESTS or dimension is _CONCURRENCY:
            return 1.0
        if dimension is _TOKENS:
            return usage.input + usage.output
        if dimension is _INPUT:
            return usage.input
        if dimension is _OUTPUT:
            return usage.output
        return usage.input * self.input_price + usage.output * self.output_price

    def charges(self) -> list[Charge]:
        """What to reserve."""
        cost, estimate = self.cost, self.estimate
        return [Charge(bucket, cost(bucket.limit.dimension, estimate)) for bucket in self.allotment.buckets]

    def corrections(
        self, charges: Sequence[Charge], used: Usage, reply: Reply | None, *, counts: bool
    ) -> list[Charge]:
        """What to settle of these ``charges`` for what ``reply`` used, which may not count as a request."""
        found = []
        for bucket, cost in charges:
            dimension = bucket.limit.dimension
            if dimension is _REQUESTS:
                if not counts:
                    found.append(Charge(bucket, -cost))
            elif dimension is _CONCURRENCY:
                found.append(Charge(bucket, -cost))
            else:
                delta = self._used(dimension, used, reply) - cost
                if delta:
                    found.append(Charge(bucket, delta))
        return found

    def _used(self, dimension: Dimension, used: Usage, reply: Reply | None) -> float:
        if dimension is Dimension.SPEND and self.spent is not None and reply is not None:
            return self.spent(reply, used)
        return self.cost(dimension, used)


class HeldSlots:
    """The slots of the calls under way, renewed so that a long answer keeps its own.

    Run ``keep`` as a task beside the layers. What isn't renewed, since its process died, comes free.
    ``owner`` is a name that no other process has: calls' own ids may be chosen by clients, twice.
    """

    def __init__(self, store: BucketStore, *, owner: str, clock: Clock) -> None:
        self._store = store
        self._owner = owner
        self._clock = clock
        self._number = 0
        self._held: dict[str, Sequence[Bucket]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def holder(self) -> str:
        """A name for one call's slots."""
        self._number += 1
        return f"{self._owner}-{self._number}"

    def add(self, holder: str, slots: Sequence[Bucket]) -> None:
        """``holder`` has taken these."""
        if slots:
            self._held[holder] = slots

    def remove(self, holder: str) -> None:
        """It has given them back."""
        self._held.pop(holder, None)

    async def renew(self) -> None:
        """Renew all of them once, some at a time: a store that is far away is asked for many."""
        held = list(self._held.items())
        for place in range(0, len(held), _AT_ONCE):
            await asyncio.gather(*(self._renew(*each) for each in held[place : place + _AT_ONCE]))

    async def _renew(self, holder: str, slots: Sequence[Bucket]) -> None:
        if holder not in self._held:
            return
        await self._store.renew(holder, slots)
        if holder not in self._held:  # it ended meanwhile, and its slots may have been taken again
            self._store.settle(holder, [Charge(slot, -1) for slot in slots], 0.0)

    async def keep(self, every: float = 20.0) -> None:
        """Renew all of them ``every`` so many seconds (a third of the shortest ttl), until cancelled."""
        while True:
            await self._clock.sleep(every)
            await self.renew()


class RateLimit:
    """Layer around everything that costs: takes what ``resolve`` says the call needs, and settles it.

    Raises RateLimited, LimitTooSmall, QuotaExhausted, or Overloaded where a limit that fails closed
    can't be counted. Writes what is left to ``call.allowances``.
    """

    def __init__(
        self,
        inner: Service,
        *,
        resolve: Callable[[Call], Claim | None],
        store: BucketStore,
        slots: HeldSlots,
        meter: Meter,
    ) -> None:
        self._inner = inner
        self._resolve = resolve
        self._store = store
        self._slots = slots
        self._meter = meter

    def __call__(self, call: Call) -> AbstractAsyncContextManager[Reply]:
        claim = self._resolve(call)
        if claim is None or not claim.allotment.buckets:
            return self._inner(call)
        return Opening(self._limited(call, claim))

    async def _limited(self, call: Call, claim: Claim) -> AsyncGenerator[Reply]:
        holder = self._slots.holder()
        verdict = await self._store.take(holder, claim.charges())
        call.allowances = verdict.allowances()
        if not verdict.admitted:
            raise self._refusal(call, verdict)
        reservation = _Reservation(claim, holder, verdict)
        self._slots.add(holder, claim.allotment.slots)
        try:
            async with self._inner(call) as reply:
                reservation.reply = reply
                yield reply
        except GatewayError as error:
            reservation.failure = error
            raise
        finally:
            self._settle(call, reservation)

    def _settle(self, call: Call, reservation: "_Reservation") -> None:
        self._slots.remove(reservation.holder)
        used, counts = reservation.used(call)
        claim = reservation.claim
        verdict = reservation.verdict
        corrections = claim.corrections(verdict.charges, used, reservation.reply, counts=counts)
        if corrections:
            self._store.settle(reservation.holder, corrections, verdict.at)
        if claim.allotment.estimated:
            self._meter.emit(ReservationSettled(call, claim.estimate, used))

    def _refusal(self, call: Call, verdict: Verdict) -> GatewayError:
        left = call.allowances
        delay = verdict.retry_after
        if verdict.outage is not None:
            self._meter.emit(LimitReached(call, left[0].bucket, "outage", delay))
            return Overloaded(
                f"This limit can't be counted at the moment; try again in {math.ceil(delay)} s.",
                retry_after=delay,
                allowances=left,
            )
        place = max(range(len(left)), key=verdict.waits().__getitem__)
        charge = verdict.charges[place]
        limit = charge.bucket.limit
        self._meter.emit(LimitReached(call, charge.bucket.key, limit.dimension, delay))
        name = limit.dimension.replace("_", " ")
        if limit.window is None:
            text = f"All {limit.amount:g} of your concurrent requests are under way; wait for one to end."
            return RateLimited(text, retry_after=delay, allowances=left)
        what = f"{limit.amount:g} {name} a {limit.window}"
        if delay == NEVER:
            text = (
                f"The call may take {charge.cost:g} {name} and the limit is {what}: shorten it or max_tokens."
            )
            return LimitTooSmall(text, allowances=left)
        if limit.rolls:
            text = f"The limit of {what} is reached; try again in {math.ceil(delay * 10 - 1e-4) / 10:g} s."
            return RateLimited(text, retry_after=delay, allowances=left)
        text = f"The quota of {what} is used up; the next begins in {math.ceil(delay)} s."
        return QuotaExhausted(text, retry_after=delay, allowances=left)


class _Reservation:
    """What one call has taken, and what became of it."""

    __slots__ = ("claim", "failure", "holder", "reply", "verdict")

    def __init__(self, claim: Claim, holder: str, verdict: Verdict) -> None:
        self.claim = claim
        self.holder = holder
        self.verdict = verdict
        self.reply: Reply | None = None
        self.failure: GatewayError | None = None

    def used(self, call: Call) -> tuple[Usage, bool]:
        """What the call used, and whether it counts as a request.

        One that nobody answered doesn't if trying again could help, since that fault wasn't the caller's.
        """
        counts = self.reply is not None or self.failure is None or not self.failure.retryable
        used = consumption(
            call,
            self.reply,
            self.failure,
            characters=call.delivered,
            estimate=lambda _: self.claim.estimate,
        )
        return used.usage, counts

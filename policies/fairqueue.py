"""The queue before a route: tiers by what they own, tenants by what they were served, calls by their age.

Puts together ``policies.tiers``, ``policies.fairshare``, ``policies.codel`` and ``policies.lane``: who
goes next, who is sent away, and when those may come back. It keeps no time and wakes nobody.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil
from random import Random

from policies.codel import CodelOptions
from policies.fairshare import cost
from policies.lane import Lane, Ticket
from policies.service import Call, Usage
from policies.tiers import Tier, TierOptions, next_tier, owned

DEFAULT = "default"
_SWEEP = 1.0


@dataclass(frozen=True, slots=True)
class AdmissionOptions:
    """``tiers`` by name; calls of any other count to ``default``, which has the defaults if it isn't given.

    ``max_waiting`` bounds the queue of all tiers together; ``spread`` is the jitter of Retry-After.
    """

    tiers: Mapping[str, TierOptions] = field(default_factory=dict)
    codel: CodelOptions = field(default_factory=CodelOptions)
    max_waiting: int = 1000
    spread: float = 0.2

    def __post_init__(self) -> None:
        if self.max_waiting < 0:
            raise ValueError("queue.max_waiting must not be negative; 0 never queues")
        if self.spread < 0:
            raise ValueError("the spread of Retry-After must not be negative; 0.2 is proven")


def mark_of(call: Call) -> int:
    """What tells a call that comes back from another one: its body."""
    return hash(repr(call.body))


class FairQueue:
    """Who of those who wait goes next. ``shed`` is told of calls that won't: the ticket and why."""

    def __init__(
        self, options: AdmissionOptions, *, rng: Random, shed: Callable[[Ticket, str], None]
    ) -> None:
        self.options = options
        self.waiting = 0
        self._rng = rng
        self._shed = shed
        self.tiers: dict[str, Tier] = {}
        self.rule(options.tiers)
        self._swept = 0.0

    def rule(self, tiers: Mapping[str, TierOptions]) -> None:
        """Set the tiers. Those that are no more keep their seats and their queue until both are empty."""
        self._named = {**tiers, DEFAULT: tiers.get(DEFAULT, TierOptions())}
        for name, options in self._named.items():
            tier = self.tiers.get(name)
            if tier is None:
                self.tiers[name] = Tier(name, options, self.options.codel)
            else:
                tier.options = options
        self._drop_unnamed()

    def ticket(self, call: Call, cost: float, weight: float, now: float) -> Ticket:
        """A call comes that will probably cost so much: it may be one that was told to come now."""
        tier = self.tiers[call.tier if call.tier in self._named else DEFAULT]
        ticket = Ticket(call, tier, cost, weight, now)
        if not tier.mean:
            tier.guess(cost, self.tiers.values())
        lane = tier.lanes.get(call.tenant)
        if lane is not None and lane.promised:
            tier.redeem(ticket, mark_of(call), now)
        return ticket

    def sit(self, ticket: Ticket, now: float) -> None:
        """It takes a seat at once, since nobody waits."""
        ticket.tier.counters.passed(ticket.call.tenant)
        self._sit(ticket, now)

    def leave(self, ticket: Ticket, now: float, usage: Usage | None, *, answered: bool) -> None:
        """Its seat is free. What it was charged is settled: by ``usage``, or to nothing without an answer."""
        tier = ticket.tier
        tier.leave(ticket)
        if not answered:
            tier.counters.charge(ticket.call.tenant, -ticket.cost / ticket.weight)
            return
        tier.learn(ticket.cost, now - ticket.seated)
        if usage is not None:
            tier.counters.charge(
                ticket.call.tenant, (cost(usage.input, usage.output) - ticket.cost) / ticket.weight
            )

    def join(self, ticket: Ticket, now: float, limit: int) -> str | None:
        """Begin to wait; None, or why it may not: "late", since it would wait too long, or "full"."""
        tier = ticket.tier
        self._sweep(now)
        tenant = ticket.call.tenant
        lane = tier.lane(tenant, now)
        if not tier.options.max_wait or self._too_late(ticket, lane, now, limit):
            return "late"
        full = self.waiting >= self.options.max_waiting and not ticket.promised
        if full and not self._make_room(tier):
            return "full"
        lane.push(ticket, now)
        tier.counters.enter(tenant)
        tier.waiting += 1
        self.waiting += 1
        return None

    def give_up(self, ticket: Ticket) -> None:
        """It waits no more."""
        ticket.tier.remove(ticket)
        self.waiting -= 1

    def retry_after(self, ticket: Ticket, now: float, limit: int, opens_in: float = 0.0) -> float:
        """Seconds until a call that is sent away now will find a seat: they are booked for it.

        Until ``opens_in`` seconds from now nobody is served.
        """
        tier = ticket.tier
        lane = tier.lane(ticket.call.tenant, now)
        seats = self._seats(tier, limit)
        fair = max(1, ceil(opens_in + tier.wait(lane, ticket.cost, seats, now)))
        spread = self._rng.uniform(1, 1 + self.options.spread)
        wait = tier.book(now, fair * spread, ticket.cost, seats)
        lane.promise(mark_of(ticket.call), now, wait, ticket.cost)
        return wait

    def next(self, now: float, limit: int, first_token: float) -> Ticket | None:
        """Who takes the next seat; it is seated. ``first_token`` is how long it will yet wait for that."""
        while (tier := next_tier(self.tiers.values(), limit)) is not None:
            lane = tier.next()
            self._shed_late(tier, lane, now, limit)
            ticket = lane.first()
            self.give_up(ticket)
            if now + first_token <= ticket.call.deadline:
                self._sit(ticket, now)
                return ticket
            self._shed(ticket, "deadline")
        return None

    def _sit(self, ticket: Ticket, now: float) -> None:
        tier = ticket.tier
        tier.counters.charge(ticket.call.tenant, ticket.cost / ticket.weight)
        tier.sit(ticket, now)

    def _seats(self, tier: Tier, limit: int) -> float:
        return max(1.0, tier.seats, owned(self.tiers.values(), limit).get(tier, 0))

    def _too_late(self, ticket: Ticket, lane: Lane, now: float, limit: int) -> bool:
        tier = ticket.tier
        if ticket.promised or not tier.waiting:
            return False
        patience = tier.options.max_wait
        if lane.codel.overloaded:
            patience = min(patience, lane.codel.longest_wait)
        return tier.wait(lane, tier.mean, self._seats(tier, limit), now, patience) > patience

    def _shed_late(self, tier: Tier, lane: Lane, now: float, limit: int) -> None:
        """Send away whom an overloaded lane kept too long, while it has more than it can serve soon."""
        tier.forget(lane, now)
        lane.look(now)
        seats = self._seats(tier, limit)
        while lane.waiting > 1 and (late := lane.late(now)) is not None:
            patience = lane.codel.longest_wait
            if tier.wait(lane, 0.0, seats, now, patience) <= patience:
                return
            self.give_up(late)
            self._shed(late, "late")

    def _make_room(self, tier: Tier) -> bool:
        """Shed the newest call of the lowest tier, if that is lower than this one."""
        crowded = [tier for tier in self.tiers.values() if tier.waiting]
        lowest = min(crowded, key=lambda tier: tier.options.weight, default=tier)
        if lowest.options.weight >= tier.options.weight:
            return False
        longest = max(lowest.lanes.values(), key=lambda lane: lane.waiting)
        newest = longest.newest() or longest.first()
        self.give_up(newest)
        self._shed(newest, "tier")
        return True

    def _sweep(self, now: float) -> None:
        """Once a second, drop what is over."""
        if now - self._swept < _SWEEP:
            return
        self._swept = now
        for tier in self.tiers.values():
            tier.sweep(now)
        self._drop_unnamed()

    def _drop_unnamed(self) -> None:
        for name, tier in list(self.tiers.items()):
            if name not in self._named and not tier.running and not tier.waiting:
                del self.tiers[name]

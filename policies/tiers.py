"""Tiers: who of several classes of customers may take the next seat, and how long the others wait.

Each tier owns ceil(limit * share / sum of shares) of the seats there are at the moment and lends what it
leaves idle, as in the Kubernetes API server's priority and fairness. Seats aren't taken back from calls
under way: the owner gets the next ones that become free.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, inf

from policies.codel import CodelOptions
from policies.fairshare import VirtualTokenCounters
from policies.lane import PAGE, Lane, Ticket

_SMOOTHING = 0.05
_MANY = 64
"""With more lanes their sums of the last sweep stand for each of them."""
_PAGES = 200
_ROOM = 0.8
"""The share of the seats that may be promised: the rest is for who comes in between."""
_PUT_OFF = 5.0
_FIRST_GUESS = 1.0
"""Seconds that a call is taken to last while nothing is known of any."""


@dataclass(frozen=True, slots=True)
class TierOptions:
    """``share`` of the seats is owned, on any common scale; idle ones are lent in proportion to ``weight``.

    Under overload the tier of least weight is shed first. ``max_wait`` is in seconds; 0 never queues.
    """

    share: float = 1.0
    weight: float = 1.0
    max_wait: float = 60.0

    def __post_init__(self) -> None:
        if self.share < 0:
            raise ValueError("share must not be negative; 0 owns no seat and only borrows")
        if self.weight <= 0:
            raise ValueError("weight must be above 0: it says how seats are lent, and who is shed last")
        if self.max_wait < 0:
            raise ValueError("queue.max_wait must not be negative; 0 never queues")


class Tier:
    """One tier's calls: those that sit, those that wait by tenant, and how fast the seats are left."""

    __slots__ = (
        "_booked", "_codel", "_since", "_weights", "_whole", "_whole_soon", "counters", "ended",
        "hold", "kept", "lanes", "mean", "name", "options", "running", "seats", "waiting",
    )  # fmt: skip

    def __init__(self, name: str, options: TierOptions, codel: CodelOptions) -> None:
        self.name = name
        self.options = options
        self.running = 0
        self.waiting = 0
        self.counters = VirtualTokenCounters()
        self.lanes: dict[str, Lane] = {}
        self._codel = codel
        self.hold = _FIRST_GUESS
        self.ended = 0
        self._since = 0.0  # the sum of the times at which those that run took their seats
        self._booked: dict[int, float] = {}  # by page
        self._whole = self._whole_soon = self._weights = 0.0  # the lanes' work and weights at the last sweep
        self.mean = 0.0  # what a call costs
        self.seats = 0.0  # smoothed, taken
        self.kept = 1.0  # the share of those told to come back who do

    def lane(self, tenant: str, now: float) -> Lane:
        lane = self.lanes.get(tenant)
        if lane is None:
            lane = self.lanes[tenant] = Lane(self._codel, now)
        return lane

    def guess(self, cost: float, others: Iterable["Tier"]) -> None:
        """Take a first call for the mean one, to last as long as those of the tier that served most."""
        self.mean = cost
        self.hold = max(others, key=lambda tier: tier.ended, default=self).hold

    def remove(self, ticket: Ticket) -> None:
        """It waits no more."""
        tenant = ticket.call.tenant
        lane = self.lanes[tenant]
        lane.remove(ticket)
        self.waiting -= 1
        if not lane.waiting:
            self.counters.leave(tenant)
            if lane.empty:
                del self.lanes[tenant]

    def next(self) -> Lane:
        """The lane whose turn it is: promises are kept before others are served."""
        owed = [tenant for tenant in self.counters.waiting if self.lanes[tenant].owes]
        return self.lanes[self.counters.next(owed)]

    def sit(self, ticket: Ticket, now: float) -> None:
        """A call takes a seat."""
        self.running += 1
        self._since += now
        ticket.seated = now

    def leave(self, ticket: Ticket) -> None:
        """Its seat is free."""
        self.running -= 1
        self._since = self._since - ticket.seated if self.running else 0.0

    def learn(self, cost: float, seconds: float) -> None:
        """A call was served: learn what one seat serves. The first ones count for more, as in a mean."""
        self.ended += 1
        gain = max(_SMOOTHING, 1 / (self.ended + 1))
        self.mean += (cost - self.mean) * gain
        self.hold += (seconds - self.hold) * gain
        self.seats += (self.running - self.seats) * gain

    def redeem(self, ticket: Ticket, mark: int, now: float) -> None:
        """Let a call that comes back when told go first."""
        lane = self.lanes.get(ticket.call.tenant)
        if lane is not None and lane.redeem(mark, now):
            ticket.promised = True
            self.kept += (1 - self.kept) * _SMOOTHING

    def forget(self, lane: Lane, now: float) -> None:
        """Drop the promises that nobody came for, and learn to count on fewer."""
        if broken := lane.forget(now):
            self.kept *= (1 - _SMOOTHING) ** broken

    def wait(self, lane: Lane, own: float, seats: float, now: float, patience: float = inf) -> float:
        """Seconds until the work ahead of a lane's next call, itself included, is done by ``seats``.

        Places that were promised for later than ``patience`` seconds from now don't count.
        """
        until = now + patience
        own += lane.ahead(self.kept, until)
        # Tenants take turns: until this is done each other one is served as much, by weight, if it has it.
        if len(self.lanes) > _MANY:
            whole = self._whole if patience == inf else self._whole_soon
            ahead = own + min(whole, own * self._weights / lane.weight)
        else:
            ahead = own + sum(
                min(other.ahead(self.kept, until), own * other.weight / lane.weight)
                for other in self.lanes.values()
                if other is not lane
            )
        return ahead / self.pace(seats, now)

    def pace(self, seats: float, now: float) -> float:
        """The cost that ``seats`` serve in a second."""
        return (self.mean or 1.0) * seats / self._lasts(now)

    def book(self, now: float, wait: float, cost: float, seats: float) -> float:
        """Find room for a promise: at ``wait`` seconds from now, or as soon as not too much is promised.

        Nobody is put off for longer than ``_PUT_OFF`` times its fair wait, whatever others booked.
        """
        room = max(0.0, _ROOM * PAGE * self.pace(seats, now) - cost)
        due = now + wait
        latest = now + _PUT_OFF * wait
        for _ in range(_PAGES):
            if self.kept * self._booked.get(int(due / PAGE), 0.0) <= room or due + PAGE > latest:
                break
            due += PAGE
        page = int(due / PAGE)
        self._booked[page] = self._booked.get(page, 0.0) + cost
        return due - now

    def sweep(self, now: float) -> None:
        """Drop the lanes in which nobody waits and to which nobody came back, and bookings of the past."""
        for tenant, lane in list(self.lanes.items()):
            self.forget(lane, now)
            if lane.empty:
                del self.lanes[tenant]
        soon = now + self.options.max_wait
        self._whole = sum(lane.ahead(self.kept) for lane in self.lanes.values())
        self._whole_soon = sum(lane.ahead(self.kept, soon) for lane in self.lanes.values())
        self._weights = sum(lane.weight for lane in self.lanes.values())
        page = int(now / PAGE)
        self._booked = {key: cost for key, cost in self._booked.items() if key >= page}

    def _lasts(self, now: float) -> float:
        """Seconds from seat to end. As long as fewer have ended than run, no less than these have taken."""
        if self.ended < self.running:
            return max(self.hold, now - self._since / self.running)
        return self.hold


def owned(tiers: Iterable[Tier], limit: int) -> dict[Tier, int]:
    """How many seats are guaranteed to each tier."""
    tiers = tuple(tiers)
    whole = sum(tier.options.share for tier in tiers) or 1.0
    return {tier: ceil(limit * tier.options.share / whole - 1e-9) for tier in tiers}


def next_tier(tiers: Iterable[Tier], limit: int) -> Tier | None:
    """Whose call takes the next seat: the owner that has least of what it owns, else who borrows least."""
    tiers = tuple(tiers)
    seats = owned(tiers, limit)
    waiting = [tier for tier in tiers if tier.waiting]
    owners = [tier for tier in waiting if tier.running < seats[tier]]
    if owners:
        return min(owners, key=lambda tier: tier.running / seats[tier])
    return min(waiting, key=lambda tier: (tier.running + 1 - seats[tier]) / tier.options.weight, default=None)

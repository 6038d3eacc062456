"""A tenant's place in a tier's queue: its calls in waiting, and the promises made to those sent away.

A queue for each flow, each with its own delay control, is FQ-CoDel's (RFC 8290): a flood makes its own
calls late and shed, and nobody else's.

A Retry-After is a booking: the work sent away counts as ahead of whoever comes later, and whoever comes
back when told to finds it redeemed, goes first and isn't sent away a second time. What isn't redeemed
in time is dropped.
"""

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

from policies.codel import CodelOptions, ControlledDelay
from policies.service import Call

if TYPE_CHECKING:
    from policies.tiers import Tier

_GRACE = 0.1
_LEAST_GRACE = 5.0
_SLACK = 0.05
_MOST_PROMISES = 10_000
_ROUNDING = 1e-6
PAGE = 5.0
"""Seconds of the calendar of promises that are looked at together."""


class Ticket:
    """A call's place in its tier's queue: ``promised`` tells that it came back when it was told to.

    ``waits`` is true from when it is queued until it is served, shed or given up; ``seated`` is when it
    took its seat.
    """

    __slots__ = ("arrived", "call", "cost", "promised", "seated", "tier", "waits", "weight")

    def __init__(self, call: Call, tier: "Tier", cost: float, weight: float, now: float) -> None:
        self.call = call
        self.tier = tier
        self.cost = cost
        self.weight = weight
        self.arrived = now
        self.seated = now
        self.promised = False
        self.waits = False


class Lane:
    """First served are those who came back when told, then the oldest, or the newest while overloaded."""

    __slots__ = (
        "_book",
        "_came_back",
        "_others",
        "_pages",
        "_promises",
        "codel",
        "cost",
        "promised",
        "waiting",
        "weight",
    )

    def __init__(self, options: CodelOptions, now: float) -> None:
        self._came_back: deque[Ticket] = deque()
        self._others: deque[Ticket] = deque()
        self._promises: dict[int, deque[_Promise]] = {}
        self._book: list[_Promise] = []  # a heap, by when they end
        self._pages: dict[int, float] = {}  # what they cost, by when they are due
        self.codel = ControlledDelay(options, now)
        self.cost = 0.0
        self.promised = 0.0
        self.waiting = 0
        self.weight = 1.0

    def ahead(self, kept: float, until: float = inf) -> float:
        """The work before a call that comes now: what waits, and what was promised and will be asked for.

        What is due after ``until`` doesn't count.
        """
        if until == inf or not self._pages:
            return self.cost + kept * self.promised
        return self.cost + kept * sum(cost for page, cost in self._pages.items() if page * PAGE < until)

    @property
    def empty(self) -> bool:
        return not self.waiting and not self._promises

    @property
    def owes(self) -> bool:
        """Whether somebody waits who came back when told."""
        return _front(self._came_back) is not None

    # Waiting

    def push(self, ticket: Ticket, now: float) -> None:
        self.look(now)
        ticket.waits = True
        self.weight = ticket.weight
        (self._came_back if ticket.promised else self._others).append(ticket)
        self.waiting += 1
        self.cost += ticket.cost

    def remove(self, ticket: Ticket) -> None:
        """It was served, shed or given up. Its place in line is cleared when it comes to the front."""
        ticket.waits = False
        self.waiting -= 1
        self.cost = self.cost - ticket.cost if self.waiting else 0.0
        if not self.waiting:
            self._came_back.clear()
            self._others.clear()

    def look(self, now: float) -> None:
        """Tell the delay control how long the oldest has waited."""
        oldest = _front(self._others) or _front(self._came_back)
        self.codel.observe(now, 0.0 if oldest is None else now - oldest.arrived)

    def late(self, now: float) -> Ticket | None:
        """A call that an overloaded lane has kept for too long, oldest first."""
        oldest = _front(self._others)
        if oldest is None or not self.codel.overloaded:
            return None
        return oldest if now - oldest.arrived > self.codel.longest_wait else None

    def first(self) -> Ticket:
        """Whose turn it is; somebody waits."""
        if (ticket := _front(self._came_back)) is None:
            ticket = self.newest() if self.codel.overloaded else _front(self._others)
        if ticket is None:
            raise LookupError("nobody waits in this lane")
        return ticket

    def newest(self) -> Ticket | None:
        """The last that came, of those who weren't told to."""
        while self._others and not self._others[-1].waits:
            self._others.pop()
        return self._others[-1] if self._others else None

    # Promises

    def promise(self, mark: int, now: float, wait: float, cost: float) -> None:
        """Whoever was sent away is to come back, with the same mark, after ``wait`` seconds."""
        if len(self._book) < _MOST_PROMISES:
            promise = _Promise(mark, now + wait, now + wait + max(_LEAST_GRACE, _GRACE * wait), cost)
            self._promises.setdefault(mark, deque()).append(promise)
            heappush(self._book, promise)
            self.promised += cost
            self._pages[promise.page] = self._pages.get(promise.page, 0.0) + cost

    def redeem(self, mark: int, now: float) -> bool:
        """Whether a call that comes now was promised a place; the promise is then kept."""
        for promise in self._promises.get(mark, ()):
            if promise.due <= now + _SLACK:
                self._drop(promise)
                return True
        return False

    def forget(self, now: float) -> int:
        """Drop the promises that nobody came for; how many there were."""
        broken = 0
        while self._book and (self._book[0].until < now or self._book[0].over):
            promise = heappop(self._book)
            if not promise.over:
                self._drop(promise)
                broken += 1
        return broken

    def _drop(self, promise: "_Promise") -> None:
        promise.over = True
        same = self._promises[promise.mark]
        same.remove(promise)
        if not same:
            del self._promises[promise.mark]
        self.promised = self.promised - promise.cost if self._promises else 0.0
        left = self._pages.pop(promise.page, 0.0) - promise.cost
        if left > _ROUNDING * promise.cost:
            self._pages[promise.page] = left


@dataclass(slots=True, eq=False)
class _Promise:
    """Good from ``due`` until ``until``, for a call with this mark."""

    mark: int
    due: float
    until: float
    cost: float
    over: bool = False

    @property
    def page(self) -> int:
        return int(self.due / PAGE)

    def __lt__(self, other: "_Promise") -> bool:
        return self.until < other.until


def _front(line: deque[Ticket]) -> Ticket | None:
    while line and not line[0].waits:
        line.popleft()
    return line[0] if line else None

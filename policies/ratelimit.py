"""Rate limits: the arithmetic of one bucket, without a clock and without a store.

GCRA, the generic cell rate algorithm (ITU-T I.371, annex A), in its continuous-state form: a bucket
holds a level that drains at the limit's rate, a call fits if its cost does not lift the level above
the burst, and the wait for one that doesn't is known exactly. The other form, which redis-cell uses,
keeps a theoretical arrival time, ``tat = now + level / rate``; it decides the same. A level counts in
the limit's own unit, so that no rounding adds up however fine the rate is.

Two things go beyond it. Whoever reserves an estimate settles it: too much comes back, never below an
empty bucket; too little is debt, which the next calls wait for. And a day or a month is the
calendar's: its level does not drain, but begins again at midnight or on the first in the limit's zone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from operator import itemgetter
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from policies.periods import current
from policies.service import Allowance

NEVER = math.inf
"""The wait of a call whose cost alone is more than the bucket holds."""

SLOT_WAIT = 1.0
"""The wait told when all slots are taken: when one of them comes free isn't known."""

_INSTANT = 1e-6
"""Redis tells the time in microseconds: a wait that is no longer than one is none."""


class Dimension(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    INPUT = "input_tokens"
    OUTPUT = "output_tokens"
    TOKENS = "tokens"
    SPEND = "spend"
    CONCURRENCY = "concurrency"


class Window(StrEnum):
    """The time that an amount is given for. Short ones roll; a day and a month are the calendar's."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


_SECONDS = {Window.SECOND: 1.0, Window.MINUTE: 60.0, Window.HOUR: 3600.0}


@dataclass(frozen=True, slots=True)
class Limit:
    """So much of ``dimension`` in a ``window``; concurrency has none: it limits what runs at a time.

    ``burst`` is what may come at once in a rolling window, the whole amount unless told; ``zone`` is
    where days and months begin, and ``is_quota`` tells that it is of one. ``strict`` limits fail closed
    when nobody can count: spend always does. A slot that isn't renewed for ``ttl`` seconds is free again.
    """

    dimension: Dimension
    amount: float
    window: Window | None = None
    burst: float | None = None
    zone: str = "UTC"
    strict: bool = False
    ttl: float = 60.0
    rate: float = field(init=False, repr=False)
    capacity: float = field(init=False, repr=False)
    slack: float = field(init=False, repr=False)
    is_quota: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if (self.window is None) != (self.dimension is Dimension.CONCURRENCY):
            raise ValueError("Give every limit a window (10/minute), and concurrency none.")
        if not (self.amount > 0 and math.isfinite(self.amount)):
            raise ValueError("A limit must be above zero; leave it out to set none.")
        if self.burst is not None and not (self.burst > 0 and self.window in _SECONDS):
            raise ValueError("A burst is above zero, and only of a second, a minute or an hour.")
        if self.ttl <= 0:
            raise ValueError("ttl must be above zero seconds.")
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"There is no time zone {self.zone!r}; use a name like Europe/Berlin.") from None
        rate = self.amount / _SECONDS[self.window] if self.window in _SECONDS else 0.0
        capacity = self.amount if self.burst is None else self.burst
        object.__setattr__(self, "rate", rate)
        object.__setattr__(self, "capacity", capacity)
        object.__setattr__(self, "slack", rate * _INSTANT or capacity * 1e-12)
        object.__setattr__(self, "is_quota", not rate and self.window is not None)

    @property
    def rolls(self) -> bool:
        """Whether its level drains with time."""
        return self.rate > 0

    @property
    def fails_closed(self) -> bool:
        """Whether nothing may pass while nobody can count."""
        return self.strict or self.dimension is Dimension.SPEND


@dataclass(frozen=True, slots=True)
class Bucket:
    """What counts towards a limit. Buckets that are taken from together share the tag of their key."""

    key: str
    limit: Limit


def bucket_for(limit: Limit, *, tag: str, scope: str) -> Bucket:
    """The bucket of ``scope`` ("key:ab12", "tenant") among those that ``tag`` (the tenant) keeps together.

    The amount is no part of the key: a tier that changes takes the counts along. The braces are Redis
    Cluster's: what is inside them decides on which of its nodes a key lies.
    """
    window = limit.window or "now"
    return Bucket(f"tidegate:{{{tag}}}:{scope}:{limit.dimension}:{window}", limit)


class Charge(NamedTuple):
    """A cost for a bucket; to settle, what is added to the level or, if negative, taken off."""

    bucket: Bucket
    cost: float


class Level(NamedTuple):
    """How much a bucket held at a time."""

    amount: float = 0.0
    at: float = 0.0


EMPTY = Level()


def drained(limit: Limit, level: Level, now: float) -> float:
    """What is in the bucket by now. A clock that went back drains nothing."""
    amount, at = level
    if limit.rate:
        amount = amount - (now - at) * limit.rate if now > at else amount
        return amount if amount > 0 else 0.0
    return amount if at >= current(limit.window or "day", limit.zone, now)[0] else 0.0


def wait(limit: Limit, amount: float, cost: float, now: float) -> float:
    """Seconds until ``cost`` fits on top of ``amount``: 0.0 if it does, ``NEVER`` if it can't."""
    excess = amount + cost - limit.capacity
    if excess <= limit.slack:
        return 0.0
    if cost > limit.capacity + limit.slack:
        return NEVER
    if limit.rate:
        return excess / limit.rate
    if limit.window is None:
        return SLOT_WAIT
    return reset(limit, amount, now)


def reset(limit: Limit, amount: float, now: float) -> float:
    """Seconds until the bucket is empty, if nothing more comes."""
    if limit.rate:
        return amount / limit.rate
    if limit.window is None or not amount:
        return 0.0
    return current(limit.window, limit.zone, now)[1] - now


class Verdict(NamedTuple):
    """What a store says of a set of charges: all of them were made, or none.

    ``amounts`` is what each bucket held before, ``at`` the store's time. ``outage`` tells that a limit
    could not be counted and fails closed; ``retry_after`` is then a guess.
    """

    admitted: bool
    at: float
    charges: Sequence[Charge]
    amounts: Sequence[float]
    outage: float | None = None

    def waits(self) -> list[float]:
        """Seconds until each of the charges fits."""
        return [
            wait(charge.bucket.limit, amount, charge.cost, self.at)
            for charge, amount in zip(self.charges, self.amounts, strict=True)
        ]

    @property
    def retry_after(self) -> float:
        """Seconds until all of them fit together, if nobody else comes before."""
        if self.admitted:
            return 0.0
        return self.outage if self.outage is not None else max(self.waits(), default=0.0)

    def allowances(self) -> list[Allowance]:
        """What is left of each limit: the binding one first, which lets the fewest further calls in."""
        found: list[tuple[float, Allowance]] = []
        admitted = self.admitted
        for (bucket, cost), amount in zip(self.charges, self.amounts, strict=True):
            limit = bucket.limit
            capacity = limit.capacity
            held = amount + cost if admitted else amount
            remaining = capacity - held if held < capacity else 0.0
            order = remaining / capacity
            if not admitted:
                order -= wait(limit, amount, cost, self.at)
            whole = held / limit.rate if limit.rate else reset(limit, held, self.at)
            found.append((order, Allowance(bucket.key, limit.dimension, capacity, remaining, whole)))
        if len(found) > 1:
            found.sort(key=itemgetter(0))
        return [left for _, left in found]


def output_cap(limits: Sequence[Limit]) -> float:
    """The most tokens of output to reserve for a call that doesn't say: a quarter of the smallest limit.

    Who asks for more than a quarter means it; who says nothing should not block its own next calls.
    """
    counted = {Dimension.OUTPUT, Dimension.TOKENS}
    caps = [int(limit.capacity * 0.25) for limit in limits if limit.dimension in counted]
    return max(1, min(caps, default=math.inf))

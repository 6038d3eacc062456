"""Off-peak knowledge: an upstream's weight and limit by the time of day in its provider's zone.

Providers are fuller by day, and some are cheaper by night (DeepSeek's discount ran from 16:30 to
00:30 UTC). Each instant has exactly one local time (IANA time zone database, RFC 6557), so asking the
instant for it is right on the days when the clocks change too: a window from 02:00 to 03:00 doesn't
occur on the day that skips this hour, and lasts two hours on the day that repeats it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time
from zoneinfo import ZoneInfo

EVERY_DAY = frozenset(range(7))
_MINUTE = 60


@dataclass(frozen=True, slots=True)
class Terms:
    """How an upstream is to be used: its share among equals and its fixed limit, where there is one.

    A limit of 0 leaves it out.
    """

    weight: float = 1.0
    max_concurrency: int | None = None

    def __post_init__(self) -> None:
        if self.weight <= 0:
            raise ValueError("weight must be above 0; a max_concurrency of 0 leaves the upstream out")
        if self.max_concurrency is not None and self.max_concurrency < 0:
            raise ValueError("max_concurrency must not be negative; 0 leaves the upstream out")


@dataclass(frozen=True, slots=True)
class Window:
    """``terms`` from ``start`` until before ``end``, local time, on ``days`` (Monday is 0).

    A window whose end isn't after its start goes past midnight and belongs to the day it starts on.
    """

    start: time
    end: time
    terms: Terms
    days: frozenset[int] = EVERY_DAY

    def __post_init__(self) -> None:
        for edge in (self.start, self.end):
            if edge.second or edge.microsecond or edge.tzinfo is not None:
                raise ValueError("a schedule's start and end are whole minutes, HH:MM, without a zone")
        if not self.days or not self.days <= EVERY_DAY:
            raise ValueError("a schedule's days are numbers from 0, Monday, to 6, Sunday; at least one")

    def covers(self, local: datetime) -> bool:
        """Whether this local time is inside."""
        now, day = local.time(), local.weekday()
        if self.start < self.end:
            return day in self.days and self.start <= now < self.end
        return (day in self.days and now >= self.start) or ((day - 1) % 7 in self.days and now < self.end)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The first window that covers the time gives the terms, else ``otherwise``."""

    zone: ZoneInfo
    windows: tuple[Window, ...]
    otherwise: Terms = Terms()

    def at(self, wall: float) -> Terms:
        """The terms at ``wall``, seconds since the epoch."""
        local = datetime.fromtimestamp(wall, self.zone)
        for window in self.windows:
            if window.covers(local):
                return window.terms
        return self.otherwise


class CurrentTerms:
    """A schedule's terms now, worked out once a minute.

    That is exact: windows begin and end on whole minutes, and zones differ from UTC by whole minutes.
    """

    __slots__ = ("_schedule", "_terms", "_until", "_wall")

    def __init__(self, schedule: Schedule, *, wall: Callable[[], float]) -> None:
        self._schedule = schedule
        self._wall = wall
        self._until = float("-inf")
        self._terms = schedule.otherwise

    def now(self) -> Terms:
        """The terms at this moment."""
        wall = self._wall()
        if not self._until - _MINUTE <= wall < self._until:
            self._terms = self._schedule.at(wall)
            self._until = (wall // _MINUTE + 1) * _MINUTE
        return self._terms

    def weight(self) -> float:
        """The share among equals at this moment."""
        return self.now().weight

    def max_concurrency(self) -> int | None:
        """The fixed limit at this moment, None for none."""
        return self.now().max_concurrency

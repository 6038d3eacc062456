"""Calendar periods: when a day or a month begins in a time zone, in seconds since the epoch."""

from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

_SLICE = 900
"""Zones differ by quarters of an hour, so that no period begins inside such a slice of time."""

Bounds = tuple[float, float, float, float]
"""When the period before, the current one, the next and the one after that begin."""


def current(unit: str, zone: str, now: float) -> tuple[float, float]:
    """Where the period that ``now`` falls into begins and ends."""
    known = _current.get((unit, zone))
    if known is None or not known[0] <= now < known[1]:
        known = _current[unit, zone] = period(bounds(unit, zone, now), now)
    return known


_current: dict[tuple[str, str], tuple[float, float]] = {}
"""The last answer for each unit and zone, of which there are few: it holds for a day at least."""


def bounds(unit: str, zone: str, now: float) -> Bounds:
    """The periods around ``now``; ``unit`` is "day" or "month".

    A neighbour on either side is told so that another clock, some seconds off, finds its own period
    in the same answer.
    """
    return _bounds(unit, zone, int(now // _SLICE))


def period(around: Bounds, now: float) -> tuple[float, float]:
    """Where the period that ``now`` falls into begins and ends."""
    if now < around[1]:
        return around[0], around[1]
    if now < around[2]:
        return around[1], around[2]
    return around[2], around[3]


@lru_cache(maxsize=512)
def _bounds(unit: str, zone: str, part: int) -> Bounds:
    local = datetime.fromtimestamp(part * _SLICE, ZoneInfo(zone))
    return (
        _start(unit, local, -1),
        _start(unit, local, 0),
        _start(unit, local, 1),
        _start(unit, local, 2),
    )


def _start(unit: str, local: datetime, ahead: int) -> float:
    if unit == "day":
        date = datetime.fromordinal(local.toordinal() + ahead)
        return date.replace(tzinfo=local.tzinfo).timestamp()
    months = local.year * 12 + local.month - 1 + ahead
    return datetime(months // 12, months % 12 + 1, 1, tzinfo=local.tzinfo).timestamp()

"""What the groups of series share: buckets, series kept at hand, and tallies for what every call counts.

With several workers each change of a series is a write to a shared file, which costs microseconds. What
every call counts is tallied in memory and written out once a second and before anybody reads.
"""

from bisect import bisect_left
from functools import lru_cache
from typing import Any, Protocol

from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
"""Buckets from a cache's answer to a slow model's long one."""


class _Tally(Protocol):
    def flush(self) -> None: ...


_unwritten: list[_Tally] = []
_traced: dict[tuple["HistogramTally", int], tuple[str, float]] = {}


class CounterTally:
    """What a counter is to grow by. For the event loop's thread alone."""

    __slots__ = ("_counter", "_more")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._more = 0

    def inc(self) -> None:
        """Count one."""
        if not self._more:
            _unwritten.append(self)
        self._more += 1

    def flush(self) -> None:
        """Write it out."""
        self._counter.inc(self._more)
        self._more = 0


class GaugeTally:
    """What a gauge is to be. For the event loop's thread alone."""

    __slots__ = ("_gauge", "_unwritten", "_value")

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._value = 0
        self._unwritten = False

    def add(self, amount: int) -> None:
        """Raise or lower it."""
        self._value += amount
        if not self._unwritten:
            self._unwritten = True
            _unwritten.append(self)

    def flush(self) -> None:
        """Write it out."""
        self._gauge.set(self._value)
        self._unwritten = False


class HistogramTally:
    """What a histogram is to be told. For the event loop's thread alone."""

    __slots__ = ("_bounds", "_counts", "_sum", "_unwritten", "histogram")

    def __init__(self, histogram: Histogram) -> None:
        self.histogram = histogram
        self._bounds = histogram._upper_bounds  # noqa: SLF001 - the library has no call for many values
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        self._unwritten = False

    def observe(self, value: float, trace: str | None = None) -> None:
        """Note a value, and the trace that tells more of it, if there is one."""
        bucket = bisect_left(self._bounds, value)
        self._counts[bucket] += 1
        self._sum += value
        if not self._unwritten:
            self._unwritten = True
            _unwritten.append(self)
        if trace is not None:
            _traced[self, bucket] = trace, value

    def flush(self) -> None:
        """Write it out."""
        histogram = self.histogram
        histogram._sum.inc(self._sum)  # noqa: SLF001
        for bucket, count in enumerate(self._counts):
            if count:
                histogram._buckets[bucket].inc(count)  # noqa: SLF001
                self._counts[bucket] = 0
        self._sum = 0.0
        self._unwritten = False


@lru_cache(maxsize=8192)
def child(series: Any, *labels: str) -> Any:
    """One series of a labelled metric. Kept at hand it costs a third of a look-up by its labels."""
    return series.labels(*labels)


@lru_cache(maxsize=8192)
def tally(series: Counter | Histogram, *labels: str) -> Any:
    """The tally of one series of a metric."""
    one: Any = series.labels(*labels) if labels else series
    return CounterTally(one) if isinstance(series, Counter) else HistogramTally(one)


def flush() -> None:
    """Write all tallies out."""
    for one in _unwritten:
        one.flush()
    _unwritten.clear()


def take_traced() -> dict[tuple[HistogramTally, int], tuple[str, float]]:
    """By bucket, the trace and the value of the last traced call since the last time."""
    taken = _traced.copy()
    _traced.clear()
    return taken

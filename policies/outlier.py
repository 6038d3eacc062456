"""Outlier ejection: tells from real calls that an upstream stopped working, and for how long it is out.

Two rules, as in Envoy's outlier detection (envoyproxy.io, "Outlier detection": consecutive 5xx and
failure percentage). A run of failures finds the dead upstream within a handful of calls; the share
of failures over a window finds the one that fails every other call and so never builds a run. The
time out is Envoy's too: it grows with each ejection, is capped, carries jitter, and falls by one
step per healthy interval.

A stream has two phases, and each has its own run. Of a server that takes no more connections the
streams under way still end well, for a minute perhaps; of one that breaks every stream the first
tokens still come. Neither good news may end the other's run.
"""

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OutlierOptions:
    """Ejection after ``consecutive`` failures, or at ``ratio`` of at least ``minimum`` in ``window`` seconds.

    The k-th lasts min(``ejection`` * k, ``longest``) seconds, plus up to ``jitter`` of that; k falls by
    one per ``calm`` seconds of health.
    """

    consecutive: int = 5
    ratio: float = 0.5
    minimum: int = 10
    window: float = 60.0
    ejection: float = 10.0
    longest: float = 300.0
    jitter: float = 0.2
    calm: float = 10.0

    def __post_init__(self) -> None:
        if self.consecutive < 1 or self.minimum < 1:
            raise ValueError("consecutive and minimum must be 1 or more: they are numbers of calls")
        if not 0 < self.ratio <= 1:
            raise ValueError("ratio must be above 0 and at most 1: the share of failures that ejects")
        if self.window <= 0 or self.calm <= 0:
            raise ValueError("window and calm must be above 0 seconds")
        if not 0 < self.ejection <= self.longest:
            raise ValueError("ejection must be above 0 seconds and at most longest")
        if not 0 <= self.jitter <= 1:
            raise ValueError("jitter must be from 0 to 1: the share of the time that is added at random")


_BUCKETS = 12


class OutlierDetector:
    """Counts outcomes in a ring of twelve buckets, so that a success costs one addition."""

    __slots__ = ("_bad", "_ok", "_openings", "_options", "_stamps", "_streams", "_width")

    def __init__(self, options: OutlierOptions) -> None:
        self._options = options
        self._width = options.window / _BUCKETS
        self.reset()

    def reset(self) -> None:
        """Forget everything, as an ejection does: a returning upstream starts with a clean record."""
        self._openings = self._streams = 0
        self._stamps = [-1] * _BUCKETS
        self._ok = [0] * _BUCKETS
        self._bad = [0] * _BUCKETS

    @property
    def run(self) -> int:
        """Failures in a row, of openings or of streams, whichever are more."""
        return max(self._openings, self._streams)

    def answered(self) -> None:
        """A call's first event came."""
        self._openings = 0

    def succeeded(self, now: float) -> None:
        """A call ended well."""
        self._streams = 0
        self._ok[self._bucket(now)] += 1

    def failed(self, now: float, *, answered: bool) -> str | None:
        """Count a failure, before or after the first event; the reason to eject, or None."""
        if answered:
            self._streams += 1
        else:
            self._openings += 1
        self._bad[self._bucket(now)] += 1
        if self.run >= self._options.consecutive:
            return f"{self.run} failures in a row"
        calls, bad = self.totals(now)
        if calls >= self._options.minimum and bad >= self._options.ratio * calls:
            return f"{bad} of {calls} calls failed within {self._options.window:g} s"
        return None

    def totals(self, now: float) -> tuple[int, int]:
        """Calls and failures within the window."""
        oldest = int(now / self._width) - _BUCKETS
        fresh = [slot for slot, stamp in enumerate(self._stamps) if stamp > oldest]
        bad = sum(self._bad[slot] for slot in fresh)
        return bad + sum(self._ok[slot] for slot in fresh), bad

    def _bucket(self, now: float) -> int:
        stamp = int(now / self._width)
        slot = stamp % _BUCKETS
        if self._stamps[slot] != stamp:
            self._stamps[slot] = stamp
            self._ok[slot] = self._bad[slot] = 0
        return slot


class EjectionTime:
    """How long the next ejection lasts: the multiplier k and what shrinks it."""

    __slots__ = ("_calm_since", "_k", "_options", "_rng")

    def __init__(self, options: OutlierOptions, rng: random.Random) -> None:
        self._options = options
        self._rng = rng
        self.forgive()

    def forgive(self) -> None:
        """Start again at the shortest time."""
        self._k = 0
        self._calm_since: float | None = None

    def healthy(self, now: float) -> None:
        """A whole call went well: k falls from now on, until ``left``."""
        if self._k and self._calm_since is None:
            self._calm_since = now

    def left(self) -> None:
        """The upstream left the rotation: k falls no longer."""
        self._calm_since = None

    def count(self, now: float) -> int:
        """The multiplier k as it is now."""
        if self._calm_since is not None:
            steps = int((now - self._calm_since) / self._options.calm)
            self._k = max(0, self._k - steps)
            self._calm_since += steps * self._options.calm
        return self._k

    def next(self, now: float) -> tuple[int, float]:
        """Count an ejection: its k and its seconds."""
        options = self._options
        self._k = min(self.count(now) + 1, math.ceil(options.longest / options.ejection))
        seconds = min(options.ejection * self._k, options.longest)
        return self._k, seconds * (1 + options.jitter * self._rng.random())

"""Tells a standing queue from a burst: controlled delay (Nichols and Jacobson, RFC 8289).

A burst is worth waiting out; a queue that hasn't been short for a whole interval only makes everybody
late. So the least delay of the interval decides, not the mean or the length. As in Facebook's "Fail at
Scale" (Maurer, ACM Queue 2015) and folly's Codel, a standing queue serves the newest first and lets
nobody wait for long. The delay is that of the oldest call in the queue: that of
the call just served would be none as soon as the newest goes first. Times suit LLMs, not RPCs of
milliseconds.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CodelOptions:
    """In seconds: ``target`` is the delay that a queue may stand at, ``interval`` how long it is watched.

    ``longest_wait`` is what a call may wait in a queue that stands.
    """

    target: float = 1.0
    interval: float = 10.0
    longest_wait: float = 5.0

    def __post_init__(self) -> None:
        if self.target <= 0 or self.interval <= 0:
            raise ValueError("codel.target and codel.interval must be above 0 s; 1 s and 10 s are proven")
        if self.longest_wait < self.target:
            raise ValueError("codel.longest_wait must be at least codel.target")


class ControlledDelay:
    """One queue's state. ``overloaded`` tells whether it stood for the whole of the last interval."""

    __slots__ = ("_ends", "_least", "_options", "longest_wait", "overloaded")

    def __init__(self, options: CodelOptions, now: float) -> None:
        self._options = options
        self.longest_wait = options.longest_wait
        self._ends = now + options.interval
        self._least = 0.0
        self.overloaded = False

    def observe(self, now: float, delay: float) -> None:
        """The oldest in the queue has waited for ``delay`` seconds; 0 where the queue is empty."""
        if now >= self._ends:
            self.overloaded = self._least > self._options.target
            self._ends = now + self._options.interval
            self._least = delay
        elif delay < self._least:
            self._least = delay

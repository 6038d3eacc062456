"""Bounds how many sequences are open, and says truthfully when to come back.

Places free at the rate at which sequences end. That rate is measured for each place that is in use and is so
known for all of them together; a caller who needs a place when all are taken is told when as many as are
missing will have been left.
"""

from math import exp

_FIRST_GUESS = 5.0
"""Seconds that a sequence is taken to last before one has ended."""
_GUESS_WEIGHT = 1.0
"""How many sequences' worth of evidence the guess is."""
_HORIZON = 30.0
"""Seconds after which evidence counts a third."""


class QueueFull(Exception):
    """No place for another sequence. `retry_after` is the expected wait in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the queue is full; a place is expected in {retry_after:.1f} s")
        self.retry_after = retry_after


class Admission:
    """Counts open sequences against the places to run and to wait. `now` is any monotonic clock's."""

    def __init__(self, max_concurrency: int, max_queue: int) -> None:
        self._max_concurrency = max_concurrency
        self.capacity = max_concurrency + max_queue
        self.open = 0
        self._ended = _GUESS_WEIGHT
        self._place_seconds = _GUESS_WEIGHT * _FIRST_GUESS
        self._seen: float | None = None

    def enter(self, count: int, now: float) -> None:
        """Take `count` places, or raise QueueFull and take none."""
        self._observe(now)
        if self.open + count > self.capacity:
            raise QueueFull((self.open + count - self.capacity) / self.drain_rate)
        self.open += count

    def leave(self, now: float) -> None:
        """Give a place back."""
        self._observe(now)
        self.open -= 1
        self._ended += 1

    @property
    def drain_rate(self) -> float:
        """Sequences that end in a second while every place is in use."""
        return self._max_concurrency * self._ended / self._place_seconds

    def expected_wait(self) -> float:
        """Seconds that one more sequence would wait before it runs."""
        return max(0, self.open + 1 - self._max_concurrency) / self.drain_rate

    def _observe(self, now: float) -> None:
        elapsed = 0.0 if self._seen is None else max(0.0, now - self._seen)
        self._seen = now
        if not self.open:
            return
        kept = exp(-elapsed / _HORIZON)
        in_use = elapsed * min(self.open, self._max_concurrency)
        self._ended *= kept
        self._place_seconds = self._place_seconds * kept + in_use

"""Bounds how many sequences are open, and says truthfully when to come back.

A place frees when a running sequence ends. With n running that each last `mean` seconds, the next one ends
after about mean / n (their remaining times taken as exponential, so how long each has run already does not
matter).
"""

_SMOOTHING = 0.2


class QueueFull(Exception):
    """No place for another sequence. `retry_after` is the expected wait in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the queue is full; a place is expected in {retry_after:.1f} s")
        self.retry_after = retry_after


class Admission:
    """Counts open sequences against the places to run and to wait. Not thread-safe."""

    def __init__(self, max_concurrency: int, max_queue: int, first_guess: float = 5.0) -> None:
        self._max_concurrency = max_concurrency
        self.capacity = max_concurrency + max_queue
        self.open = 0
        self._mean_seconds = first_guess

    def enter(self, count: int) -> None:
        """Take `count` places, or raise QueueFull and take none."""
        if self.open + count > self.capacity:
            missing = self.open + count - self.capacity
            raise QueueFull(missing * self._mean_seconds / max(min(self.open, self._max_concurrency), 1))
        self.open += count

    def leave(self, seconds: float | None) -> None:
        """Give a place back; `seconds` is how long the sequence ran, None if it never did."""
        self.open -= 1
        if seconds is not None:
            self._mean_seconds += _SMOOTHING * (seconds - self._mean_seconds)

"""Congestion seen in the time to the first token: for upstreams that queue instead of refusing.

Total latency misleads, since the answer's length dominates it; the time to the first token shows
the upstream's queue. As in TCP Vegas (Brakmo and Peterson, 1995) a delay is judged against the
least delay seen; as in Envoy's adaptive concurrency filter samples are judged by the window and
not one by one, since single times to the first token are heavy-tailed. A window's median stands
for it, and the least median of the last minutes is what the upstream does without a queue.
"""

from collections import deque
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class CongestionOptions:
    """A window closes after both ``samples`` and ``window`` seconds.

    It shows congestion when its median exceeds ``tolerance`` times the least median of the last
    ``memory`` seconds. A low tolerance takes noise for a queue: at 1.5 two thirds of the windows of an
    idle upstream would. A median below ``floor`` seconds shows none: where a few milliseconds have
    become a few more, nobody waits.
    """

    tolerance: float = 3.0
    window: float = 2.0
    samples: int = 10
    memory: float = 300.0
    floor: float = 0.5

    def __post_init__(self) -> None:
        if self.tolerance <= 1:
            raise ValueError("congestion.tolerance must be above 1; 3 is proven")
        if self.window <= 0 or self.samples < 1:
            raise ValueError("congestion.window must be above 0 s and congestion.samples at least 1")
        if self.memory < self.window:
            raise ValueError("congestion.memory must be no shorter than congestion.window")
        if self.floor < 0:
            raise ValueError("congestion.floor must be 0 s or more")


class FirstTokenDelay:
    """Judges an upstream by its times to the first token."""

    __slots__ = ("_least", "_opened", "_options", "_samples", "baseline")

    def __init__(self, options: CongestionOptions) -> None:
        self._options = options
        self._samples: list[float] = []
        self._opened = float("-inf")
        self._least: deque[tuple[float, float]] = deque()  # medians rising, so that the first is the least
        self.baseline: float | None = None

    def sample(self, now: float, seconds: float) -> bool | None:
        """Add one time to the first token: whether the window that it closes is congested, else None."""
        options = self._options
        self._samples.append(seconds)
        if len(self._samples) < options.samples or now - self._opened < options.window:
            return None
        middle = median(self._samples)
        self._samples.clear()
        self._opened = now
        least = self._least
        while least and least[0][0] < now - options.memory:
            least.popleft()
        while least and least[-1][1] >= middle:
            least.pop()
        least.append((now, middle))
        self.baseline = least[0][1]
        return middle > max(options.floor, options.tolerance * self.baseline)

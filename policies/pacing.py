"""Dispatch paced by what the upstream says is left: remaining / reset requests a second.

For a limit that refills continuously this settles where the bucket is half full and the pace is
the refill rate; for one that resets at the end of a window it spreads the rest of the window. Both
use the whole limit without ever being refused. The spacing is GCRA (ITU-T I.371), which keeps its
account when the rate changes with each reading.
"""

from dataclasses import dataclass
from math import inf

from policies.service import Headroom

_SMOOTHING = 0.1


@dataclass(frozen=True, slots=True)
class PacingOptions:
    """Readings with a reset within ``horizon`` seconds are paced; beyond it only an empty one counts.

    A daily quota is there to be used when it is needed, so it isn't spread over the day.
    ``burst_share`` of what remains may go at once.
    """

    horizon: float = 120.0
    burst_share: float = 0.5

    def __post_init__(self) -> None:
        if self.horizon < 0:
            raise ValueError("pacing.horizon must not be negative; 0 turns pacing off")
        if not 0 <= self.burst_share <= 1:
            raise ValueError("pacing.burst_share must be between 0 and 1")


class Pacer:
    """Says when the next attempt may be sent."""

    __slots__ = ("_interval", "_mean_tokens", "_options", "_tat", "_tolerance", "_valid_until", "ready_at")

    def __init__(self, options: PacingOptions) -> None:
        self._options = options
        self._interval = 0.0
        self._tolerance = 0.0
        self._tat = 0.0  # GCRA's theoretical arrival time of the next attempt
        self._valid_until = 0.0
        self._mean_tokens = 0.0
        self.ready_at = 0.0

    def told(self, now: float, headroom: Headroom) -> float:
        """Take in what a reply said: until when nothing is left, in the past when something is."""
        interval = burst = longest = empty_until = 0.0
        for remaining, reset, each in (
            (headroom.remaining_requests, headroom.reset_requests, 1.0),
            (headroom.remaining_tokens, headroom.reset_tokens, self._mean_tokens),
        ):
            if remaining is None or reset is None or reset <= 0:
                continue
            if remaining <= 0:
                empty_until = max(empty_until, now + reset)
            elif each and reset <= self._options.horizon:
                attempts = max(1.0, remaining / each)
                longest = max(longest, reset)
                if reset / attempts > interval:
                    interval = reset / attempts
                    burst = max(1.0, attempts * self._options.burst_share)
        self._interval = interval
        self._tolerance = interval * (burst - 1)
        self._valid_until = now + longest
        self._tat = min(self._tat, now + longest)
        self.ready_at = self._tat - self._tolerance if interval else 0.0
        return empty_until

    def sent(self, now: float) -> None:
        """Account for an attempt."""
        if self._interval and now < self._valid_until:
            self._tat = max(self._tat, now) + self._interval
            # When the reset is past, everything is there again even if no reply has said so.
            self.ready_at = max(self.ready_at, min(self._tat - self._tolerance, self._valid_until))

    def free(self, now: float) -> float:
        """How many attempts may be sent at once; infinity where nothing is paced."""
        if not self._interval or now >= self._valid_until:
            return inf
        if now < self.ready_at:
            return 0
        return 1 + (now + self._tolerance - max(self._tat, now)) // self._interval

    def used(self, tokens: int) -> None:
        """Learn how many tokens an attempt takes."""
        if tokens > 0:
            self._mean_tokens += (tokens - self._mean_tokens) * (_SMOOTHING if self._mean_tokens else 1.0)

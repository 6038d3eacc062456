"""How busy the engine is, for /load and /metrics: written by the engine's thread, read by anyone."""

from dataclasses import dataclass
from math import exp

_HORIZON = 10.0
"""Seconds after which a measured speed counts a third."""


@dataclass
class Load:
    """Sequences now, blocks now, tokens a second of late, and totals since the start."""

    blocks: int
    free_blocks: int
    cached_blocks: int = 0
    running: int = 0
    waiting: int = 0
    tokens_per_second: float = 0.0
    prefilled: int = 0
    decoded: int = 0
    prefix_hits: int = 0
    preemptions: int = 0
    guessed: int = 0
    guessed_right: int = 0
    failures: int = 0
    restarts: int = 0
    joules: float = 0.0
    flops: int = 0
    energy_source: str = ""


class Speed:
    """Generated tokens a second, while tokens were being generated."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._seconds = 0.0

    def observe(self, tokens: int, seconds: float) -> None:
        """A step took so long."""
        kept = exp(-seconds / _HORIZON)
        self._tokens = self._tokens * kept + tokens
        self._seconds = self._seconds * kept + seconds

    @property
    def value(self) -> float:
        return self._tokens / self._seconds if self._seconds else 0.0

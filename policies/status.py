"""A provider's public status page as a hint: what it admits to scales an account's weight, and no more.

Status pages (Atlassian Statuspage's ``/api/v2/status.json``) lag behind and speak of a provider as a
whole, so that they never take an upstream out: its own answers do that (policies/health.py). But among
equals, traffic is better off where nobody reports an outage.
"""

import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from policies.errors import UpstreamError
from policies.ports import Clock

Read = Callable[[], Awaitable[str]]
"""Fetches the page's indicator. Raises UpstreamError where it can't be had."""

_FACTORS = {"none": 1.0, "maintenance": 0.5, "minor": 0.5, "major": 0.2, "critical": 0.1}


@dataclass(frozen=True, slots=True)
class StatusOptions:
    """The page is read every ``interval`` seconds; what it said counts for ``memory`` seconds."""

    interval: float = 60.0
    memory: float = 300.0

    def __post_init__(self) -> None:
        if self.interval <= 0 or self.memory < self.interval:
            raise ValueError("the interval must be above 0 s, and the memory no shorter than it")


class StatusHint:
    """What a page said last: none, minor, major, critical or maintenance."""

    __slots__ = ("__weakref__", "_options", "_read_at", "indicator")

    def __init__(self, options: StatusOptions) -> None:
        self._options = options
        self._read_at = float("-inf")
        self.indicator = "unknown"

    def told(self, now: float, indicator: str) -> None:
        """Take in what the page says."""
        self.indicator = indicator
        self._read_at = now

    def factor(self, now: float) -> float:
        """By how much to scale the account's weight: 1 where nothing is known or it is long ago."""
        if now - self._read_at > self._options.memory:
            return 1.0
        return _FACTORS.get(self.indicator, 1.0)


class StatusWatcher:
    """Keeps a hint up to date for as long as somebody uses it. ``run`` is a task."""

    def __init__(self, hint: StatusHint, read: Read, *, options: StatusOptions, clock: Clock) -> None:
        self._hint = weakref.ref(hint)
        self._read = read
        self._options = options
        self._clock = clock

    async def run(self) -> None:
        """Read the page every interval. One that can't be had changes nothing."""
        while True:
            try:
                async with self._clock.timeout_at(self._clock.now() + self._options.interval):
                    indicator = await self._read()
            except (UpstreamError, TimeoutError):
                indicator = None
            hint = self._hint()
            if hint is None:
                return
            if indicator is not None:
                hint.told(self._clock.now(), indicator)
            del hint
            await self._clock.sleep(self._options.interval)

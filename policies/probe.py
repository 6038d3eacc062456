"""Active probes: ask an ejected upstream whether it is back, so that no client has to find out.

Ejections grow to minutes; a probe that costs nothing shortens the wait after a recovery to seconds.
Envoy's active health checking and HAProxy's ``check inter`` do the same. A provider has no health
page of its own, so the free probe is its list of models, which answers for the front door only: it
makes a trial worth while and proves nothing. The other probe is a real call of one token, which
proves health and costs money, so that it is off until somebody sets how many an hour may be paid.
"""

import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from policies.errors import UpstreamError, UpstreamTimeout
from policies.facts import ProbeFinished
from policies.health import Health, HealthState
from policies.ports import Clock, Meter

Check = Callable[[], Awaitable[object]]
"""Asks the upstream once. Returns when it answered well, raises an UpstreamError otherwise."""

_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """``kind`` "models" is free, "token" is paid, at most ``paid_per_hour`` times an hour.

    Probes come every ``interval`` seconds, give or take ``jitter`` of that, and wait ``timeout``.
    """

    kind: Literal["off", "models", "token"] = "models"
    interval: float = 10.0
    jitter: float = 0.2
    timeout: float = 5.0
    paid_per_hour: int = 0

    def __post_init__(self) -> None:
        if self.kind == "token" and self.paid_per_hour < 1:
            raise ValueError("a token probe costs money: set paid_per_hour to what you are ready to pay for")
        if self.interval <= 0 or self.timeout <= 0:
            raise ValueError("interval and timeout must be above 0 seconds")
        if not 0 <= self.jitter < 1:
            raise ValueError("jitter must be from 0 to below 1")
        if self.paid_per_hour < 0:
            raise ValueError("paid_per_hour must be 0 or more")


class ProbeSchedule:
    """When to probe, and whether it may be paid for."""

    __slots__ = ("_paid", "_rng", "options")

    def __init__(self, options: ProbeOptions, rng: random.Random) -> None:
        self.options = options
        self._rng = rng
        self._paid: deque[float] = deque(maxlen=options.paid_per_hour)

    def wait(self) -> float:
        """Seconds until the next look."""
        return self.options.interval * (1 + self.options.jitter * (2 * self._rng.random() - 1))

    def wanted(self, state: HealthState) -> bool:
        """Whether a probe would tell something: traffic itself tells of an upstream in rotation."""
        if self.options.kind == "token":
            return state in {HealthState.OPEN, HealthState.HALF_OPEN}
        return self.options.kind == "models" and state is HealthState.OPEN

    def spend(self, now: float) -> bool:
        """Take one probe from the budget; False when the last hour's were enough."""
        if self.options.kind == "token":
            if len(self._paid) == self._paid.maxlen and now - self._paid[0] < _HOUR:
                return False
            self._paid.append(now)
        return True


class Prober:
    """Probes one upstream with ``check`` while it is out. ``run`` is a task for the gateway's lifetime."""

    def __init__(
        self, health: Health, check: Check, *, schedule: ProbeSchedule, clock: Clock, meter: Meter
    ) -> None:
        self._health = health
        self._check = check
        self._schedule = schedule
        self._clock = clock
        self._meter = meter

    async def run(self) -> None:
        """Look every interval, for ever."""
        while True:
            await self._clock.sleep(self._schedule.wait())
            now = self._clock.now()
            if self._schedule.wanted(self._health.state(now)) and self._schedule.spend(now):
                await self.probe()

    async def probe(self) -> None:
        """Probe once, now, whatever the budget says: an operator may ask for it."""
        options = self._schedule.options
        started = self._clock.now()
        error: UpstreamError | None = None
        try:
            async with self._clock.timeout_at(started + options.timeout):
                await self._check()
        except TimeoutError:
            error = UpstreamTimeout(f"no answer to a probe within {options.timeout:g} s")
        except UpstreamError as exc:
            error = exc
        now = self._clock.now()
        self._health.probed(now, error, proof=options.kind == "token")
        outcome = "ok" if error is None else type(error).__name__
        fact = ProbeFinished(self._health.upstream, self._health.model, options.kind, outcome, now - started)
        self._meter.emit(fact)

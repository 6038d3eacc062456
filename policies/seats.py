"""The seats that a route's upstreams have: what admission's queue drains into.

Nobody polls: who waits is told by ``Permits.watch`` when a permit comes back or the limit grows, and
looks again at ``ready_at``, when a hold-off or an ejection ends.
"""

from collections.abc import Callable, Sequence
from math import inf
from typing import Protocol

from policies.health import Health, HealthState
from policies.permits import Permits


class Seats(Protocol):
    """Where admitted calls sit."""

    def free(self, now: float, /) -> int:
        """How many calls could be sent now."""
        ...

    def limit(self, now: float, /) -> int:
        """How many calls may be under way at once; 0 when all upstreams are out, which is no overload."""
        ...

    def ready_at(self, now: float, /) -> float:
        """When a seat may become free though no call ends; infinity when nothing is planned."""
        ...

    def opens_at(self, now: float, /) -> float:
        """The time before which no seat becomes free, whatever ends."""
        ...

    def watch(self, listener: Callable[[], object], /) -> None:
        """Call ``listener`` whenever a seat may have become free."""
        ...

    def unwatch(self, listener: Callable[[], object], /) -> None:
        """Call it no more."""
        ...


_OUT = 60.0
"""An upstream that wants to hear nothing for longer than this is out, not busy."""


class RouteSeats:
    """The seats of the upstreams of a route. Accounts that share their permits are counted once."""

    def __init__(self, upstreams: Sequence[tuple[Permits, Health | None]]) -> None:
        self._upstreams: dict[Permits, list[Health]] = {}
        for permits, health in upstreams:
            healths = self._upstreams.setdefault(permits, [])
            if health is not None:
                healths.append(health)

    def free(self, now: float) -> int:
        free = 0
        for permits, healths in self._upstreams.items():
            if (seats := permits.free(now)) > 0:
                free += min(seats, _usable(healths, now, seats))
        return free

    def limit(self, now: float) -> int:
        return sum(
            _usable(healths, now, permits.limit.limit)
            for permits, healths in self._upstreams.items()
            if permits.limit.retry_at <= now + _OUT
        )

    def ready_at(self, now: float) -> float:
        ready = inf
        for permits, healths in self._upstreams.items():
            times = [permits.limit.retry_at, *(now + health.wait(now) for health in healths)]
            ready = min([ready, *(time for time in times if time > now)])
        return ready

    def opens_at(self, now: float) -> float:
        return min(
            (
                permits.limit.retry_at
                for permits, healths in self._upstreams.items()
                if _usable(healths, now, permits.limit.limit)
            ),
            default=now,
        )

    def watch(self, listener: Callable[[], object]) -> None:
        for permits in self._upstreams:
            permits.watch(listener)

    def unwatch(self, listener: Callable[[], object]) -> None:
        for permits in self._upstreams:
            permits.unwatch(listener)


def _usable(healths: Sequence[Health], now: float, seats: int) -> int:
    """All where an account is well or nobody judges, one for the trial of an account that was out."""
    if not healths or any(health.state(now) is HealthState.CLOSED for health in healths):
        return seats
    return int(any(health.available(now) for health in healths))

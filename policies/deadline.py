"""The total time of a call: whatever happens below, the client hears of it in time.

A deadline is a point in time that travels with the call, as gRPC's do, and not a duration that each
layer would start anew: queueing, retries and failover all spend from the same account.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from math import inf

from policies.errors import DeadlineExceeded
from policies.opening import opening
from policies.ports import AlarmClock
from policies.service import Call, Reply, Service
from policies.watch import Watch


@dataclass(frozen=True, slots=True)
class DeadlineOptions:
    """``total`` is in seconds since the call's arrival; None leaves the call's own deadline alone."""

    total: float | None = 600.0

    def __post_init__(self) -> None:
        if self.total is not None and self.total <= 0:
            raise ValueError("timeouts.total must be above 0 s, or absent for no limit")


class Deadline:
    """Layer around a whole call: sets ``call.deadline`` and raises DeadlineExceeded when it passes.

    The nearer of the call's own deadline and ``total`` counts. A stream that is still flowing then is
    ended too.
    """

    def __init__(self, inner: Service, *, options: DeadlineOptions, clock: AlarmClock) -> None:
        self._inner = inner
        self._total = inf if options.total is None else options.total
        self._clock = clock

    @opening
    async def __call__(self, call: Call) -> AsyncGenerator[Reply]:
        call.deadline = deadline = min(call.deadline, call.arrived + self._total)
        if deadline == inf:
            async with self._inner(call) as reply:
                yield reply
            return
        watch = Watch(self._clock, deadline - self._clock.now())
        watch.begin()
        try:
            async with self._inner(call) as reply:
                yield reply
        except asyncio.CancelledError as error:
            if not watch.stop():
                raise
            seconds = deadline - call.arrived
            raise DeadlineExceeded(
                f"The call took longer than its limit of {seconds:g} s; ask for less or raise timeouts.total."
            ) from error
        finally:
            watch.stop()
            watch.close()

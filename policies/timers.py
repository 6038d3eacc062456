"""Timers by meaning: how long an upstream may stay silent before and between parts of the answer.

A read timeout on the socket is no use with LLMs: keep-alive comments, empty lines, role-only and
empty deltas reset it, so that an upstream that will never answer looks alive. These timers count
from one part of the answer to the next and nothing else resets them. The time that the client takes
to read doesn't count.

Cost: a stream has one alarm (``policies.watch``), and an event that is waited for one reading of the clock.
"""

import asyncio
import math
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType

from policies.arrivals import arrivals
from policies.errors import StreamInterrupted, UpstreamTimeout
from policies.facts import TimerExpired
from policies.ports import AlarmClock, Meter
from policies.service import Call, Reply, Service
from policies.watch import Watch


@dataclass(frozen=True, slots=True)
class TimerOptions:
    """Limits in seconds; None sets none.

    ``first_token`` and ``stall`` are for streams. ``unary`` is for whole bodies, in which the first
    token can't be seen, so it has to leave time for the longest answer.
    """

    first_token: float | None = 30.0
    stall: float | None = 30.0
    unary: float | None = 300.0

    def __post_init__(self) -> None:
        for name in ("first_token", "stall", "unary"):
            limit = getattr(self, name)
            if limit is not None and limit <= 0:
                raise ValueError(f"timeouts.{name} must be above 0 s, or absent for no limit")


class SilenceTimers:
    """Layer around one upstream: UpstreamTimeout before the answer's first part, StreamInterrupted after.

    The latter is raised by reading ``reply.events``, which tell this layer of each wait.
    """

    def __init__(
        self, inner: Service, *, upstream: str, options: TimerOptions, clock: AlarmClock, meter: Meter
    ) -> None:
        self._inner = inner
        self._upstream = upstream
        self._options = options
        self.stall = options.stall
        self.clock = clock
        self._meter = meter

    def __call__(self, call: Call) -> AbstractAsyncContextManager[Reply]:
        return _Timed(self, call)

    def open(self, call: Call) -> AbstractAsyncContextManager[Reply]:
        return self._inner(call)

    def opening_limit(self, call: Call) -> tuple[str, float | None]:
        """The timer that bounds the opening of a reply, and its seconds."""
        if call.stream:
            return "first_token", self._options.first_token
        return "unary", self._options.unary

    def expired(self, call: Call, timer: str, seconds: float) -> UpstreamTimeout | StreamInterrupted:
        """Tell that a timer expired: the error to raise."""
        self._meter.emit(TimerExpired(call, self._upstream, timer, seconds))
        if timer == "stall":
            return StreamInterrupted(f"{self._upstream} went silent for {seconds:g} s in mid-answer.")
        return UpstreamTimeout(f"{self._upstream} kept silent for {seconds:g} s.")


class _Timed:
    """A reply under the timers; written out, since a generator would cost as much as the timers do."""

    __slots__ = ("_call", "_inner", "_timers", "_watch")

    def __init__(self, timers: SilenceTimers, call: Call) -> None:
        self._timers = timers
        self._call = call
        self._inner = timers.open(call)

    async def __aenter__(self) -> Reply:
        timers = self._timers
        timer, limit = timers.opening_limit(self._call)
        self._watch = watch = _SilenceWatch(timers, self._call, timer, limit)
        watch.begin()
        try:
            reply = await self._inner.__aenter__()
        except asyncio.CancelledError:
            watch.close()
            watch.cancelled()
            raise
        except BaseException:
            watch.stop()
            watch.close()
            raise
        watch.stop()
        if reply.stream and timers.stall is not None:
            reply.events = events = arrivals(reply.events)
            events.watch = watch
            watch.turn_to("stall", timers.stall)
        return reply

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._watch.close()
        return await self._inner.__aexit__(kind, error, trace)


class _SilenceWatch(Watch):
    """Bounds each wait of a reply; content gives the next one the whole ``limit`` again."""

    __slots__ = ("_call", "_timer", "_timers", "limit")

    def __init__(self, timers: SilenceTimers, call: Call, timer: str, limit: float | None) -> None:
        self._timers = timers
        self._call = call
        self._timer = timer
        self.limit = math.inf if limit is None else limit
        super().__init__(timers.clock, self.limit)

    def turn_to(self, timer: str, limit: float) -> None:
        """The next waits belong to another timer."""
        self._timer = timer
        self.limit = limit
        self.allow(limit)

    def cancelled(self) -> None:
        if self.stop():
            raise self._timers.expired(self._call, self._timer, self.limit) from None

    def nothing_came(self) -> None:
        if self.since is not None:
            self.left -= self.now() - self.since
        self.since = None

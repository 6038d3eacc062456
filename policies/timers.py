"""Timers by meaning: how long an upstream may stay silent before and between parts of the answer.

A read timeout on the socket is no use with LLMs: keep-alive comments, empty lines, role-only and
empty deltas reset it, so that an upstream that will never answer looks alive. These timers count
from one part of the answer to the next and nothing else resets them. The time that the client takes
to read doesn't count.

Cost: a stream has one alarm, re-armed only when it goes off early, as in the lazy timers of Varghese
and Lauck, "Hashed and Hierarchical Timing Wheels" (1987); an event costs two readings of the clock.
"""

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType

from policies.errors import StreamInterrupted, UpstreamTimeout
from policies.facts import TimerExpired
from policies.ports import Alarm, AlarmClock, Meter
from policies.service import Call, Event, Reply, Service


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

    ``reply.events`` is replaced by an iterator that raises the latter itself.
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


class _Watch:
    """Cancels the task that waits when its deadline passes: ``asyncio.timeout`` for many waits.

    It belongs to the task that opens a reply, which is the one that reads it.
    """

    __slots__ = ("_alarm", "_alarm_at", "_cancelling", "_clock", "_deadline", "_expired", "_task", "_waiting")

    def __init__(self, clock: AlarmClock) -> None:
        self._clock = clock
        self._alarm: Alarm | None = None
        self._alarm_at = 0.0
        self._deadline = 0.0
        self._task = asyncio.current_task()
        self._waiting = False
        self._cancelling = 0
        self._expired = False

    def begin(self, deadline: float) -> None:
        """The task is about to wait."""
        self._waiting = True
        self._cancelling = self._task.cancelling() if self._task else 0
        self._deadline = deadline
        if self._alarm is None or deadline < self._alarm_at:
            self._arm()

    def end(self) -> bool:
        """It waits no longer: whether it was cancelled by this watch and by nobody else."""
        self._waiting = False
        if not self._expired or self._task is None:
            return False
        self._expired = False
        return self._task.uncancel() <= self._cancelling

    def close(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _arm(self) -> None:
        self.close()
        self._alarm_at = self._deadline
        self._alarm = self._clock.call_at(self._deadline, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._task is None or not self._waiting:
            return
        if self._deadline > self._alarm_at:
            self._arm()
        else:
            self._expired = True
            self._task.cancel()


class _Timed:
    """A reply under the timers; written out, since a generator would cost as much as the timers do."""

    __slots__ = ("_call", "_inner", "_timers", "_watch")

    def __init__(self, timers: SilenceTimers, call: Call) -> None:
        self._timers = timers
        self._call = call
        self._watch = _Watch(timers.clock)
        self._inner = timers.open(call)

    async def __aenter__(self) -> Reply:
        timers, watch = self._timers, self._watch
        timer, limit = timers.opening_limit(self._call)
        if limit is not None:
            watch.begin(timers.clock.now() + limit)
        try:
            reply = await self._inner.__aenter__()
        except BaseException as error:
            ours = watch.end()
            watch.close()
            if ours and limit is not None and isinstance(error, asyncio.CancelledError):
                raise timers.expired(self._call, timer, limit) from None
            raise
        watch.end()
        if reply.stream and timers.stall is not None:
            reply.events = _WatchedEvents(timers, self._call, reply, watch)
        return reply

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._watch.close()
        return await self._inner.__aexit__(kind, error, trace)


class _WatchedEvents:
    """Events of a reply, each content event of which must come within ``limit`` after the last one."""

    __slots__ = ("_at_hand", "_call", "_events", "_left", "_limit", "_next", "_now", "_timers", "_watch")

    def __init__(self, timers: SilenceTimers, call: Call, reply: Reply, watch: _Watch) -> None:
        self._timers = timers
        self._call = call
        self._events = reply.events
        self._next = reply.events.__anext__
        self._at_hand = reply.at_hand
        self._watch = watch
        self._limit = self._left = timers.stall or 0.0
        self._now = timers.clock.now

    def __aiter__(self) -> "_WatchedEvents":
        return self

    async def __anext__(self) -> Event:
        if self._at_hand():  # nothing is waited for
            event = await self._next()
            if event.content:
                self._left = self._limit
            return event
        started = self._now()
        watch = self._watch
        watch.begin(started + self._left)
        try:
            event = await self._next()
        except BaseException as error:
            if watch.end() and isinstance(error, asyncio.CancelledError):
                raise self._timers.expired(self._call, "stall", self._limit) from None
            raise
        watch.end()
        if event.content:
            self._left = self._limit
        else:
            self._left -= self._now() - started
        return event

    async def aclose(self) -> None:
        """Close the inner events, where they can be closed."""
        close = getattr(self._events, "aclose", None)
        if close is not None:
            await close()

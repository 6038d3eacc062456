"""Hedge: open a second attempt when the first event is unusually late, and keep whichever comes first.

Jeffrey Dean and Luiz Barroso, "The Tail at Scale" (CACM 56(2), 2013): a hedged request sent after the
95th percentile of the expected latency cuts the tail for some percent of extra load. Only the first
event of a stream is raced, since the rest of an answer takes as long as it is. Hedges draw on the
same budget as retries and are off under overload, where they would feed it.

The first attempt runs in the caller's own task, so an answer in time costs one alarm. The hedge runs
in a task of its own, which enters and leaves everything that it opened (PEP 789); if it wins, its
events are handed over one by one and errors are handed back, so that layers inside see them.
"""

import asyncio
import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from policies.branch import Branch
from policies.budget import RetryBudget
from policies.errors import GatewayError
from policies.facts import Hedged, HedgeFinished
from policies.opening import opening
from policies.ports import AlarmClock, Meter
from policies.service import LOST, PENDING, Call, Reply, Service


@dataclass(frozen=True, slots=True)
class HedgeOptions:
    """``after`` is a fixed delay in seconds; None takes ``quantile`` of the last ``window`` first events.

    ``tiers`` may be hedged. With less than ``enough`` first events known there is no hedge.
    """

    after: float | None = None
    tiers: frozenset[str] = frozenset()
    quantile: float = 0.95
    window: int = 1000
    enough: int = 20

    def __post_init__(self) -> None:
        if self.after is not None and self.after < 0:
            raise ValueError(f"hedge.after is {self.after:g} s: give 0 s or more, or p95")
        if not 0 < self.quantile < 1:
            raise ValueError(f"the quantile of hedge.after is {self.quantile:g}: give one between 0 and 1")
        if not 1 <= self.enough <= self.window:
            raise ValueError("hedging needs a window of at least 1 first event and of at least `enough`")


class FirstEvents:
    """The times to the first event of the last ``window`` attempts, in seconds, and their quantile."""

    __slots__ = ("_options", "_ordered", "_recent")

    def __init__(self, options: HedgeOptions) -> None:
        self._options = options
        self._recent: deque[float] = deque()
        self._ordered: list[float] = []

    def record(self, seconds: float) -> None:
        """Take in a first attempt's time, or how long it had already taken when the hedge won."""
        self._recent.append(seconds)
        insort(self._ordered, seconds)
        if len(self._recent) > self._options.window:
            del self._ordered[bisect_left(self._ordered, self._recent.popleft())]

    def delay(self) -> float | None:
        """Seconds after which to hedge, or None while too little is known."""
        if self._options.after is not None:
            return self._options.after
        count = len(self._ordered)
        if count < self._options.enough:
            return None
        return self._ordered[min(count - 1, math.ceil(self._options.quantile * count) - 1)]


class Hedge:
    """Layer around one step of a route: races a late first event against a second attempt.

    A second attempt is a fresh pick of the balanced group inside, which passes over the upstreams that
    are in ``call.attempts`` already. ``worthwhile`` tells, when its time has come, whether there is such
    an upstream and room for extra work.
    """

    def __init__(  # noqa: PLR0913 - what it decides by, and its ports
        self,
        inner: Service,
        options: HedgeOptions,
        *,
        budget: RetryBudget,
        worthwhile: Callable[[Call], bool],
        clock: AlarmClock,
        meter: Meter,
    ) -> None:
        self.inner = inner
        self.budget = budget
        self.worthwhile = worthwhile
        self.clock = clock
        self.meter = meter
        self._options = options
        self._first_events = FirstEvents(options)

    @opening
    async def __call__(self, call: Call) -> AsyncGenerator[Reply]:
        if not call.stream or call.tier not in self._options.tiers:
            async with self.inner(call) as reply:
                yield reply
            return
        started = self.clock.now()
        delay = self._first_events.delay()
        if delay is None:
            async with self.inner(call) as reply:
                self._first_events.record(self.clock.now() - started)
                yield reply
            return
        async with _Race(self, call, delay) as race, AsyncExitStack() as stack:
            reply = await race.winner(stack)
            self._first_events.record(self.clock.now() - started)
            yield reply


class _Race:
    """One call's two attempts; leaving it closes the second one.

    The scope around the first attempt's opening is an asyncio.timeout without a time: only the hedge
    ends it, by moving its deadline to the past.
    """

    __slots__ = ("_alarm", "_before", "_call", "_delay", "_hedge", "_layer", "_scope", "_settled")

    def __init__(self, layer: Hedge, call: Call, delay: float) -> None:
        self._layer = layer
        self._call = call
        self._delay = delay
        self._before = len(call.attempts)
        self._scope = asyncio.timeout(None)
        self._settled = False
        self._hedge: Branch | None = None

    async def __aenter__(self) -> Self:
        clock = self._layer.clock
        self._alarm = clock.call_at(clock.now() + self._delay, self._launch)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._alarm.cancel()
        if self._hedge is not None:
            await self._hedge.__aexit__(kind, error, trace)

    def _launch(self) -> None:
        """Its time has come: open the second attempt, unless that isn't wanted now."""
        layer, call = self._layer, self._call
        if layer.worthwhile(call) and layer.budget.withdraw(layer.clock.now()):
            layer.meter.emit(Hedged(call, self._delay))
            self._hedge = Branch(layer.inner(call), self._interrupt)

    def _interrupt(self) -> None:
        if not self._settled and self._hedge is not None:
            self._decide(self._hedge.opened.result())
            self._scope.reschedule(-math.inf)

    def _decide(self, winner: Reply) -> None:
        """Enter the race's end in the call's history, before the losers see that they are cancelled."""
        for attempt in self._call.attempts[self._before :]:
            if attempt.outcome in {PENDING, LOST}:
                won = (
                    attempt.first_event is not None
                    and attempt.upstream == winner.upstream
                    and attempt.model == winner.model
                )
                attempt.outcome = PENDING if won else LOST

    async def winner(self, stack: AsyncExitStack) -> Reply:
        """The reply whose first event came first; the other attempt is cancelled."""
        failure: GatewayError | None = None
        try:
            async with self._scope:
                reply = await stack.enter_async_context(self._layer.inner(self._call))
        except TimeoutError:
            if not self._scope.expired():
                raise
        except GatewayError as error:
            failure = error
        self._alarm.cancel()
        self._settled = True
        hedge = self._hedge
        if hedge is None:
            if failure is not None:
                raise failure
            return reply
        if failure is None and not self._scope.expired():
            self._decide(reply)
            hedge.cancel()
            self._tell(hedge, "lost")
            return reply
        try:
            reply = await hedge.opened
        except GatewayError:
            self._tell(hedge, "lost")
            if failure is None:
                raise
            raise failure from None
        self._tell(hedge, "won")
        return reply

    def _tell(self, hedge: Branch, outcome: str) -> None:
        error = hedge.failure()
        name = outcome if error is None else type(error).__name__
        self._layer.meter.emit(HedgeFinished(self._call, name))

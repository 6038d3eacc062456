"""Hedge: open a second attempt when the first event is unusually late, and keep whichever comes first.

Jeffrey Dean and Luiz Barroso, "The Tail at Scale" (CACM 56(2), 2013): a hedged request sent after the
95th percentile of the expected latency cuts the tail for some percent of extra load. Only the first
event of a stream is raced, since the rest of an answer takes as long as it is. Hedges draw on the
same budget as retries and are off under overload, where they would feed it.

The first attempt runs in the caller's own task, so an answer in time costs one timer. The hedge runs
in a task of its own, which enters and leaves everything that it opened (PEP 789); if it wins, its
events are handed over one by one and errors are handed back, so that layers inside see them.
"""

import asyncio
import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from policies.branch import Branch
from policies.budget import RetryBudget
from policies.errors import GatewayError
from policies.facts import Hedged, HedgeFinished
from policies.ports import Clock, Meter
from policies.service import Call, Reply, Service


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
        clock: Clock,
        meter: Meter,
    ) -> None:
        self._inner = inner
        self._options = options
        self._budget = budget
        self._worthwhile = worthwhile
        self._clock = clock
        self._meter = meter
        self._first_events = FirstEvents(options)

    @asynccontextmanager
    async def __call__(self, call: Call) -> AsyncIterator[Reply]:
        if not call.stream or call.tier not in self._options.tiers:
            async with self._inner(call) as reply:
                yield reply
            return
        started = self._clock.now()
        delay = self._first_events.delay()
        async with AsyncExitStack() as stack:
            if delay is None:
                reply = await stack.enter_async_context(self._inner(call))
            else:
                reply = await self._race(call, delay, stack)
            self._first_events.record(self._clock.now() - started)
            yield reply

    async def _race(self, call: Call, delay: float, stack: AsyncExitStack) -> Reply:
        """The reply whose first event came first; the other one is cancelled."""
        race = _Race()
        branch = await stack.enter_async_context(Branch(self._late(call, delay, race), race.interrupt))
        failure: GatewayError | None = None
        try:
            async with race.scope:
                reply = await stack.enter_async_context(self._inner(call))
        except TimeoutError:
            if not race.scope.expired():
                raise
        except GatewayError as error:
            failure = error
        race.settled = True
        if failure is None and not race.scope.expired():
            branch.cancel()
            self._tell(call, race, branch, "lost")
            return reply
        if failure is not None and not race.sent:
            raise failure
        try:
            reply = await branch.opened
        except GatewayError:
            self._tell(call, race, branch, "lost")
            if failure is None:
                raise
            raise failure from None
        self._tell(call, race, branch, "won")
        return reply

    @asynccontextmanager
    async def _late(self, call: Call, delay: float, race: "_Race") -> AsyncIterator[Reply]:
        """The second attempt, unless it isn't wanted when its time has come."""
        await self._clock.sleep(delay)
        if not self._worthwhile(call) or not self._budget.withdraw(self._clock.now()):
            raise _NotWanted
        race.sent = True
        self._meter.emit(Hedged(call, delay))
        async with self._inner(call) as reply:
            yield reply

    def _tell(self, call: Call, race: "_Race", branch: Branch, outcome: str) -> None:
        if not race.sent:
            return
        error = branch.failure()
        self._meter.emit(HedgeFinished(call, outcome if error is None else type(error).__name__))


class _NotWanted(Exception):
    """The hedge was not sent."""


class _Race:
    """The first attempt's opening, which the hedge interrupts when its first event comes first.

    The scope is an asyncio.timeout without a time: it is only ever cancelled by moving its deadline
    to the past.
    """

    __slots__ = ("scope", "sent", "settled")

    def __init__(self) -> None:
        self.scope = asyncio.timeout(None)
        self.sent = False
        self.settled = False

    def interrupt(self) -> None:
        if not self.settled:
            self.scope.reschedule(-math.inf)

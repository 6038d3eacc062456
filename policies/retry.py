"""Retry: try again before the first event, elsewhere at once, at the same upstream after a wait.

The wait is AWS's full jitter (Marc Brooker, "Exponential Backoff And Jitter", 2015): uniform between 0
and an exponential ceiling, so that clients which failed together don't come back together. An
upstream's Retry-After is the floor on which the jitter stands. Nobody waits while another upstream of
the group could answer. What all retries together may cost is bounded by ``policies.budget``.

tenacity drives the attempts and is entered only once a first attempt has failed, since it costs tens
of microseconds a call. Its own jitter draws from the global random and its ``stop_after_delay`` reads
the global clock, so the decisions are ours.
"""

import math
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from tenacity import AsyncRetrying, RetryCallState

from policies.budget import RetryBudget
from policies.errors import (
    AttemptHeldBack,
    NoHealthyUpstream,
    UpstreamError,
    UpstreamKeyRejected,
    UpstreamQuotaExhausted,
    UpstreamThrottled,
    UpstreamTimeout,
)
from policies.facts import RetryRefused, RetryScheduled
from policies.opening import opening
from policies.ports import Clock, Meter
from policies.service import Call, Reply, Service

Another = Callable[[Call], bool]
"""Tells whether the group inside would now pick an upstream that isn't in ``call.attempts``."""


@dataclass(frozen=True, slots=True)
class RetryOptions:
    """``attempts`` counts the first one too. The ceiling of wait k is ``base * 2**k``, at most ``cap``.

    ``patience`` is the longest wait worth having: where the ceiling or Retry-After is above it, the
    failure is raised instead. Give a step that has a next one a small patience (0.05 still rides out
    a reset), the last step an infinite one.
    """

    attempts: int = 3
    throttled_base: float = 1.0
    base: float = 0.05
    cap: float = 20.0
    patience: float = math.inf

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"retries.attempts is {self.attempts}: give 1 (no retry) or more")
        if not 0 < self.base <= self.cap or not 0 < self.throttled_base <= self.cap:
            raise ValueError("the bases of the backoff must be above 0 s and at most its cap")
        if self.patience < 0:
            raise ValueError(f"patience is {self.patience:g} s: give 0 s or more")


class Backoff:
    """Decides for one call, after each of its failures, how long to wait before the next attempt.

    With several upstreams tried and none left, it isn't known which of them the group would pick. So
    it waits for the latest Retry-After, and goes on only while every one of them may be tried again.
    """

    __slots__ = ("_broken", "_failures", "_not_before", "_options", "_random", "_spent")

    def __init__(self, options: RetryOptions, rng: random.Random) -> None:
        self._options = options
        self._random = rng
        self._failures = 0
        self._broken: set[str | None] = set()
        self._spent = False
        self._not_before = -math.inf

    def after(
        self, error: UpstreamError, upstream: str | None, *, another: bool, now: float, deadline: float
    ) -> float | None:
        """Seconds to wait before the next attempt, or None to give up."""
        self._learn(error, upstream, now)
        options = self._options
        if not error.retryable or self._failures >= options.attempts or now >= deadline:
            return None
        if another:
            return 0.0
        if self._spent:
            return None
        base = options.throttled_base if isinstance(error, UpstreamThrottled) else options.base
        ceiling = min(options.cap, base * 2.0 ** (self._failures - 1))
        floor = max(0.0, self._not_before - now)
        if max(ceiling, floor) > options.patience:
            return None
        wait = floor + self._random.uniform(0.0, ceiling)
        return wait if now + wait < deadline else None

    def _learn(self, error: UpstreamError, upstream: str | None, now: float) -> None:
        self._failures += 1
        if error.retry_after is not None:
            self._not_before = max(self._not_before, now + error.retry_after)
        if isinstance(error, UpstreamTimeout | UpstreamKeyRejected | UpstreamQuotaExhausted):
            self._spent = True
        elif not isinstance(error, UpstreamThrottled):
            self._spent = self._spent or upstream in self._broken
            self._broken.add(upstream)


class Retry:
    """Layer around a balanced group of equals; each attempt is a fresh pick.

    It reads from ``call.attempts`` which upstream failed. A failure for which there is no budget, no
    time and no upstream left is raised as it came; but that a gate of ours held back the last attempt
    doesn't hide what the upstream said to an earlier one.
    """

    def __init__(  # noqa: PLR0913 - what it decides by, and its ports
        self,
        inner: Service,
        options: RetryOptions,
        *,
        budget: RetryBudget,
        another: Another,
        clock: Clock,
        rng: random.Random,
        meter: Meter,
    ) -> None:
        self.inner = inner
        self.options = options
        self.budget = budget
        self.another = another
        self.clock = clock
        self.random = rng
        self.meter = meter

    @opening
    async def __call__(self, call: Call) -> AsyncGenerator[Reply]:
        self.budget.deposit(self.clock.now())
        seen = len(call.attempts)
        opened = False
        try:
            async with self.inner(call) as reply:
                opened = True
                yield reply
        except UpstreamError as error:
            if opened or not error.retryable or self.options.attempts == 1:
                raise
            failure = error
        else:
            return
        async with AsyncExitStack() as stack:
            yield await _Retries(self, call, failure, seen, stack).reply()


class _Retries:
    """The attempts of one call after its first one failed; tenacity sees that one as the first of its own."""

    def __init__(
        self, layer: Retry, call: Call, failure: UpstreamError, seen: int, stack: AsyncExitStack
    ) -> None:
        self._layer = layer
        self._call = call
        self._failure = failure
        self._sent_failure: UpstreamError | None = None
        self._seen = seen
        self._stack = stack
        self._backoff = Backoff(layer.options, layer.random)
        self._wait = 0.0
        self._begun = False
        self._paid = False
        self._over = False

    async def reply(self) -> Reply:
        retrying = AsyncRetrying(
            retry=self._again, wait=lambda _: self._wait, sleep=self._layer.clock.sleep, reraise=True
        )
        try:
            return await retrying(self._attempt)
        except AttemptHeldBack:
            if self._sent_failure is None:
                raise
            raise self._sent_failure from None

    async def _attempt(self) -> Reply:
        if not self._begun:
            raise self._failure
        self._seen = len(self._call.attempts)
        try:
            reply = await self._stack.enter_async_context(self._layer.inner(self._call))
        except NoHealthyUpstream:
            self._over = True
            raise self._failure from None
        if self._paid:
            self._layer.budget.refund()
        return reply

    def _again(self, state: RetryCallState) -> bool:
        """Whether to go on; leaves the wait where tenacity asks for it."""
        error = state.outcome.exception() if state.outcome else None
        if self._over or not isinstance(error, UpstreamError):
            return False
        if not isinstance(error, AttemptHeldBack):
            self._sent_failure = error
        layer, call = self._layer, self._call
        now = layer.clock.now()
        upstream = self._upstream_of(error)
        wait = self._backoff.after(
            error, upstream, another=layer.another(call), now=now, deadline=call.deadline
        )
        if wait is None:
            return False
        # An attempt that a gate of ours held back cost nobody anything, so its successor is no extra load.
        self._paid = not isinstance(error, AttemptHeldBack)
        if self._paid and not layer.budget.withdraw(now):
            layer.meter.emit(RetryRefused(call, type(error).__name__, upstream))
            return False
        layer.meter.emit(RetryScheduled(call, type(error).__name__, upstream, wait))
        self._begun, self._wait, self._failure = True, wait, error
        call.queued += wait
        return True

    def _upstream_of(self, error: UpstreamError) -> str | None:
        """The upstream that failed so; a hedge may have entered its own attempts in between."""
        name = type(error).__name__
        for attempt in reversed(self._call.attempts[self._seen :]):
            if attempt.outcome == name:
                return attempt.upstream
        return None

"""Adaptive concurrency, the layer: who may enter, by the arithmetic of ``policies.concurrency``.

A permit is held until the reply is left, since a stream occupies the upstream for as long as it
lasts. A call that finds no permit is refused at once, so that the balancer or the failover can give
it to somebody else; the balancer asks ``available`` first and opens nothing in vain. Waiting in a fair
queue is admission's part. What ``patience`` adds is a short wait in the order of arrival, for a
route whose last upstream this is: there a refusal would only cost one of the call's few retries.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from policies.concurrency import ConcurrencyLimit
from policies.errors import UpstreamThrottled
from policies.facts import AttemptRefused, LimitChanged
from policies.ports import Alarm, AlarmClock, Meter
from policies.service import Call, Reply, Service


class AdaptiveConcurrency:
    """Layer around one upstream: holds a permit from before the attempt until its reply is left.

    Raises UpstreamThrottled without a status when the attempt wasn't sent.
    """

    def __init__(
        self,
        inner: Service,
        *,
        upstream: str,
        limit: ConcurrencyLimit,
        clock: AlarmClock,
        meter: Meter,
    ) -> None:
        self._inner = inner
        self._upstream = upstream
        self._limit = limit
        self._clock = clock
        self._meter = meter
        self._told = limit.limit
        self._queue: deque[asyncio.Future[float]] = deque()
        self._alarm: Alarm | None = None

    @property
    def limit(self) -> int:
        """How many attempts may be under way at once."""
        return self._limit.limit

    @property
    def inflight(self) -> int:
        """How many attempts are under way."""
        return self._limit.inflight

    @property
    def waiting(self) -> int:
        """How many calls wait for a permit."""
        return len(self._queue)

    @property
    def retry_at(self) -> float:
        """When the upstream wants to hear from us again; in the past when it doesn't mind."""
        return self._limit.retry_at

    def available(self, now: float) -> bool:
        """Whether a call that enters now is let through."""
        return not self._queue and self._limit.available(now)

    def wait(self, now: float) -> float:
        """Seconds until a call is probably let through."""
        return self._limit.wait(now)

    @asynccontextmanager
    async def __call__(self, call: Call) -> AsyncIterator[Reply]:
        now = self._clock.now()
        if self.available(now):
            self._limit.sent(now)
            sent_at = now
        else:
            sent_at = await self._wait(call, now)
        reply: Reply | None = None
        try:
            async with self._inner(call) as reply:
                self._answered(reply, sent_at)
                yield reply
        except UpstreamThrottled as error:
            if reply is None:
                self._throttled(error, sent_at)
            raise
        finally:
            usage = reply.usage if reply else None
            tokens = usage.input + usage.output if usage else 0
            self._limit.ended(self._clock.now(), sent_at, reply is not None, tokens)
            if self._queue:
                self._grant()

    def _answered(self, reply: Reply, sent_at: float) -> None:
        now = self._clock.now()
        self._limit.answered(now, sent_at, now - sent_at if reply.stream else None, reply.headroom)
        self._tell_change()
        if self._queue:
            self._grant()

    def _throttled(self, error: UpstreamThrottled, sent_at: float) -> None:
        self._limit.throttled(self._clock.now(), sent_at, error)
        self._tell_change()

    def _tell_change(self) -> None:
        limit = self._limit
        if limit.limit != self._told:
            self._told = limit.limit
            self._meter.emit(LimitChanged(self._upstream, limit.limit, limit.inflight, limit.cause))

    async def _wait(self, call: Call, now: float) -> float:
        """Wait in turn for a permit: the time it was given. Raises UpstreamThrottled when patience ends."""
        patience = self._limit.options.patience
        if patience <= 0 or self._limit.retry_at >= now + patience:
            raise self._refusal(call, now)
        turn: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        self._arm(now)
        try:
            async with self._clock.timeout_at(now + patience):
                return await turn
        except BaseException as error:
            if turn in self._queue:
                self._queue.remove(turn)
            elif not turn.cancelled():  # given a permit and cancelled in the same moment
                self._limit.ended(self._clock.now(), turn.result(), answered=False, tokens=0)
                self._grant()
            if isinstance(error, TimeoutError):
                raise self._refusal(call, self._clock.now()) from None
            raise

    def _grant(self) -> None:
        """Give what permits there are to those who wait."""
        now = self._clock.now()
        while self._queue and self._limit.available(now):
            turn = self._queue.popleft()
            if not turn.done():
                self._limit.sent(now)
                turn.set_result(now)
        self._arm(now)

    def _arm(self, now: float) -> None:
        """Look again when the hold-off ends: nothing else may happen until then."""
        if self._alarm is None and self._queue and self._limit.retry_at > now:
            self._alarm = self._clock.call_at(self._limit.retry_at, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._grant()

    def _refusal(self, call: Call, now: float) -> UpstreamThrottled:
        retry_after = self._limit.wait(now)
        reason = "hold-off" if self._limit.retry_at > now else "limit"
        self._meter.emit(AttemptRefused(call, self._upstream, reason, retry_after))
        return UpstreamThrottled(
            f"{self._upstream} takes no more calls at the moment; try again in {retry_after:.1f} s.",
            retry_after=retry_after,
        )

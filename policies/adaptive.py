"""Adaptive concurrency, the layer: who may enter, by the arithmetic of ``policies.concurrency``.

A permit is held until the reply is left, since a stream occupies the upstream for as long as it
lasts. A call that finds no permit waits for one in the order of arrival, for at most ``patience``:
briefly where somebody else could take it, longer where there is nobody. Waiting in a fair queue is
admission's part.
"""

from collections.abc import AsyncGenerator

from policies.errors import AttemptHeldBack, UpstreamThrottled
from policies.facts import AttemptRefused, LimitChanged
from policies.opening import opening
from policies.permits import Permits
from policies.ports import Clock, Meter
from policies.service import Call, Reply, Service


class AdaptiveConcurrency:
    """Layer around one upstream: holds a permit from before the attempt until its reply is left.

    Raises AttemptHeldBack when there was none within ``patience`` seconds; nothing was sent then. The
    time that a call waited is added to ``call.queued``.
    """

    def __init__(  # noqa: PLR0913 - what it decides by, and its ports
        self,
        inner: Service,
        *,
        upstream: str,
        permits: Permits,
        patience: float,
        clock: Clock,
        meter: Meter,
    ) -> None:
        self._inner = inner
        self._upstream = upstream
        self._permits = permits
        self._limit = permits.limit
        self._patience = patience
        self._clock = clock
        self._meter = meter
        self._told = permits.limit.limit

    @opening
    async def __call__(self, call: Call) -> AsyncGenerator[Reply]:
        now = self._clock.now()
        sent_at = self._permits.take(now)
        if sent_at is None:
            sent_at = await self._wait(call, now)
        reply: Reply | None = None
        try:
            async with self._inner(call) as reply:
                self._answered(reply, sent_at)
                yield reply
        except UpstreamThrottled as error:
            if reply is None:
                self._limit.throttled(self._clock.now(), sent_at, error)
                self._tell_change()
            raise
        finally:
            usage = reply.usage if reply else None
            tokens = usage.input + usage.output if usage else 0
            self._permits.give_back(sent_at, answered=reply is not None, tokens=tokens)

    def _answered(self, reply: Reply, sent_at: float) -> None:
        now = self._clock.now()
        self._limit.answered(now, sent_at, now - sent_at if reply.stream else None, reply.headroom)
        self._tell_change()
        self._permits.grant()

    def _tell_change(self) -> None:
        limit = self._limit
        if limit.limit != self._told:
            self._told = limit.limit
            self._meter.emit(LimitChanged(self._upstream, limit.limit, limit.inflight, limit.cause))

    async def _wait(self, call: Call, now: float) -> float:
        if not self._permits.worth_waiting(now, self._patience):
            raise self._refusal(call, now)
        try:
            return await self._permits.wait_for(now, self._patience)
        except TimeoutError:
            raise self._refusal(call, self._clock.now()) from None
        finally:
            call.queued += self._clock.now() - now

    def _refusal(self, call: Call, now: float) -> AttemptHeldBack:
        retry_after = self._limit.wait(now)
        reason = "hold-off" if self._limit.retry_at > now else "limit"
        self._meter.emit(AttemptRefused(call, self._upstream, reason, retry_after))
        return AttemptHeldBack(
            f"{self._upstream} takes no more calls at the moment; try again in {retry_after:.1f} s.",
            retry_after=retry_after,
        )

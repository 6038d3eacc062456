"""Observation: what became of each call and of each attempt, told as facts.

Follows linkerd2-proxy's habit of measuring where the decision falls: one layer outermost sees what
the client got, one around each upstream sees what that upstream did.
"""

import asyncio
from collections.abc import AsyncGenerator

from policies.facts import AttemptFinished, CallFinished, CallStarted
from policies.opening import opening
from policies.ports import Clock, Meter
from policies.service import CANCELLED, LOST, OK, Attempt, Call, Reply, Service


def outcome_of(reply: Reply | None, error: BaseException | None) -> str:
    """The label of how a reply ended: "ok", "cancelled" or the error's class name."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return CANCELLED
    if error is not None:
        return type(error).__name__
    return OK if reply is not None and reply.complete else CANCELLED


class ObserveCalls:
    """Outermost layer: emits ``CallStarted`` and ``CallFinished``."""

    def __init__(self, inner: Service, *, clock: Clock, meter: Meter) -> None:
        self._inner = inner
        self._clock = clock
        self._meter = meter

    @opening
    async def __call__(self, call: Call) -> AsyncGenerator[Reply]:
        self._meter.emit(CallStarted(call))
        reply: Reply | None = None
        first_event: float | None = None
        error: BaseException | None = None
        try:
            async with self._inner(call) as reply:
                first_event = self._clock.now() - call.arrived
                yield reply
        except BaseException as exc:
            error = exc
            raise
        finally:
            self._meter.emit(
                CallFinished(
                    call=call,
                    outcome=outcome_of(reply, error),
                    duration=self._clock.now() - call.arrived,
                    first_event=first_event,
                    usage=reply.usage if reply else None,
                    upstream=reply.upstream if reply else None,
                    served_model=reply.model if reply else None,
                    cached=reply.cached if reply else None,
                )
            )


class ObserveAttempts:
    """Layer around one upstream: records each ``Attempt`` in the call's history and emits it."""

    def __init__(self, inner: Service, *, upstream: str, model: str, clock: Clock, meter: Meter) -> None:
        self._inner = inner
        self._upstream = upstream
        self._model = model
        self._clock = clock
        self._meter = meter

    @opening
    async def __call__(self, call: Call) -> AsyncGenerator[Reply]:
        started = self._clock.now()
        attempt = Attempt(self._upstream, self._model, began=started)
        call.attempts.append(attempt)
        reply: Reply | None = None
        error: BaseException | None = None
        try:
            async with self._inner(call) as reply:
                attempt.first_event = self._clock.now() - started
                yield reply
        except BaseException as exc:
            error = exc
            raise
        finally:
            outcome = outcome_of(reply, error)
            if outcome != CANCELLED or attempt.outcome != LOST:
                attempt.outcome = outcome
            attempt.duration = self._clock.now() - started
            self._meter.emit(AttemptFinished(call, attempt))

"""Attempts in a trace: a span around each, whose context travels with the request to the upstream."""

from collections.abc import AsyncGenerator
from contextvars import ContextVar

import httpx
from opentelemetry.context import Context
from opentelemetry.trace import Span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.conventions import OPERATION_NAMES
from gateway.tracing import names
from gateway.tracing.request import Attributes, RequestTrace
from gateway.upstreams import Upstream
from policies.opening import opening
from policies.service import CANCELLED, LOST, OK, Attempt, Call, Reply, Service

_PROPAGATOR = TraceContextTextMapPropagator()
_NO_CONTEXT = Context()
_SENDING: ContextVar[Span | None] = ContextVar("sending", default=None)
"""The attempt whose request is on its way to ``TracedTransport``."""
_NO_FAILURE = frozenset({OK, CANCELLED, LOST})


class TraceAttempts:
    """Layer around one upstream's entry in the history, which tells how the attempt ended."""

    def __init__(self, inner: Service, upstream: Upstream) -> None:
        self._inner = inner
        self._model = upstream.model
        url = httpx.URL(upstream.account.base_url)
        self._attributes: Attributes = {
            names.PROVIDER: names.provider_name(upstream.provider.preset),
            names.REQUEST_MODEL: upstream.model,
            names.UPSTREAM: upstream.account.name,
            names.SERVER_ADDRESS: url.host,
            names.SERVER_PORT: url.port or (443 if url.scheme == "https" else 80),
        }

    @opening
    async def __call__(self, call: Call) -> AsyncGenerator[Reply]:
        trace = call.trace
        if not isinstance(trace, RequestTrace):
            async with self._inner(call) as reply:
                yield reply
            return
        operation = OPERATION_NAMES[call.operation]
        known = {**self._attributes, names.OPERATION: operation, names.REQUEST_STREAM: call.stream}
        span = trace.attempt(f"{operation} {self._model}", known)
        place = len(call.attempts)
        answer: Reply | None = None
        sending = _SENDING.set(span)
        try:
            async with self._inner(call) as answer:
                _SENDING.reset(sending)
                yield answer
        finally:
            if answer is None:
                _SENDING.reset(sending)
            _end(trace, span, call.attempts[place], answer)


def _end(trace: RequestTrace, span: Span, attempt: Attempt, reply: Reply | None) -> None:
    """End the span of an attempt as its call's history tells it."""
    if not trace.recorded:
        return
    known: dict[str, str | int | float] = {names.OUTCOME: attempt.outcome}
    if attempt.first_event is not None:
        known[names.FIRST_CHUNK] = attempt.first_event
    if reply is not None:
        known[names.RESPONSE_MODEL] = reply.model
        if reply.usage is not None:
            known[names.INPUT_TOKENS] = reply.usage.input
            known[names.OUTPUT_TOKENS] = reply.usage.output
            known[names.CACHED_TOKENS] = reply.usage.cached_input
            known[names.REASONING_TOKENS] = reply.usage.reasoning
    span.set_attributes(known)
    trace.end(span, None if attempt.outcome in _NO_FAILURE else attempt.outcome)


class TracedTransport(httpx.AsyncBaseTransport):
    """Sends the trace's context along (W3C Trace Context), where there is one, and notes the status."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        span = _SENDING.get()
        if span is None:
            return await self._transport.handle_async_request(request)
        _PROPAGATOR.inject(request.headers, set_span_in_context(span, _NO_CONTEXT))
        response = await self._transport.handle_async_request(request)
        span.set_attribute(names.STATUS, response.status_code)
        return response

    async def aclose(self) -> None:
        await self._transport.aclose()

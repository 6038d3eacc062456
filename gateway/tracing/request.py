"""One request in its trace: the span of the request itself, and the steps below it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    format_trace_id,
    set_span_in_context,
)

from gateway.conventions import OPERATION_NAMES
from gateway.tracing import names
from policies.ports import Clock
from policies.service import CANCELLED, OK, Call, Reply

Attributes = Mapping[str, str | bool | int | float]

_NANOSECONDS = 10**9
_NOTHING: Attributes = MappingProxyType({})


class _Pending(NamedTuple):
    """A step that has begun; it is over at ``until`` if not before."""

    began: float
    until: float
    attributes: Attributes


class RequestTrace:
    """What ``Call.trace`` holds. Times are on the gateway's clock; ``wall_time`` is that of ``arrived``.

    Of a trace that the sampler doesn't keep only the context is passed on.
    """

    def __init__(  # noqa: PLR0913 - its ports
        self, span: Span, parent: Context, tracer: Tracer, *, clock: Clock, arrived: float, wall_time: float
    ) -> None:
        self.span = span
        self.recorded = span.is_recording()
        self.context = set_span_in_context(span, parent)
        self._tracer = tracer
        self._clock = clock
        self._arrived = arrived
        self._origin = round(wall_time * _NANOSECONDS)
        self._pending: dict[str, _Pending] = {}

    @property
    def id(self) -> str:
        """The trace's id, as the access log has it."""
        return format_trace_id(self.span.get_span_context().trace_id)

    @property
    def exemplar(self) -> str | None:
        """The id, if the sampler keeps the trace."""
        return self.id if self.recorded else None

    def attempt(self, name: str, attributes: Attributes) -> Span:
        """Begin the span of an attempt, which ends the wait for it; the request's if nobody keeps them."""
        if not self.recorded:
            return self.span
        now = self._clock.now()
        self._settle("retry wait", _NOTHING, now)
        return self._tracer.start_span(
            name, self.context, SpanKind.CLIENT, attributes, start_time=self._at(now)
        )

    def step(
        self,
        name: str,
        attributes: Attributes,
        *,
        took: float = 0.0,
        error: str | None = None,
        link: Span | None = None,
    ) -> None:
        """Tell what a layer did in the last ``took`` seconds; ``link`` is a span that did it for this one."""
        if not self.recorded:
            return
        now = self._clock.now()
        self._step(name, attributes, now - took, now, error=error, link=link)

    def begin(self, name: str, attributes: Attributes, *, wait: float) -> None:
        """A step begins that lasts until ``settle``, and no longer than ``wait`` seconds."""
        if not self.recorded:
            return
        self.settle(name)
        now = self._clock.now()
        self._pending[name] = _Pending(now, now + wait, attributes)

    def settle(self, name: str, attributes: Attributes = _NOTHING) -> None:
        """A step that has begun is over, and this more is known of it."""
        self._settle(name, attributes, self._clock.now())

    def end(self, span: Span, error: str | None = None) -> None:
        """End a span now, with the name of what went wrong."""
        self._end(span, self._clock.now(), error)

    def finish(  # noqa: PLR0913 - what is known of a request when it is over
        self,
        request_id: str,
        status: int,
        outcome: str,
        *,
        call: Call | None,
        reply: Reply | None,
        first_event: float | None,
    ) -> None:
        """The request is over. Its tokens are at its attempts alone, where nobody counts them twice."""
        if not self.recorded:
            return
        for name in list(self._pending):
            self.settle(name)
        told: dict[str, str | bool | int | float] = {
            names.REQUEST_ID: request_id,
            names.STATUS: status,
            names.OUTCOME: outcome,
        }
        if call is not None:
            told |= _asked(call)
        if reply is not None:
            told |= {names.UPSTREAM: reply.upstream, names.RESPONSE_MODEL: reply.model}
        if first_event is not None:
            told[names.FIRST_CHUNK] = first_event
        self.span.set_attributes(told)
        self.end(self.span, None if outcome in {OK, CANCELLED} else outcome)

    def _settle(self, name: str, attributes: Attributes, now: float) -> None:
        pending = self._pending.pop(name, None)
        if pending is not None:
            known = {**pending.attributes, **attributes}
            self._step(name, known, pending.began, min(pending.until, now))

    def _step(  # noqa: PLR0913 - a span
        self,
        name: str,
        attributes: Attributes,
        began: float,
        ended: float,
        *,
        error: str | None = None,
        link: Span | None = None,
    ) -> None:
        span = self._tracer.start_span(
            name,
            self.context,
            attributes=attributes,
            links=() if link is None else (Link(link.get_span_context()),),
            start_time=self._at(began),
        )
        self._end(span, ended, error)

    def _end(self, span: Span, ended: float, error: str | None) -> None:
        if error is not None:
            span.set_attribute(names.ERROR, error)
            span.set_status(StatusCode.ERROR)
        span.end(self._at(ended))

    def _at(self, when: float) -> int:
        """Nanoseconds since the epoch."""
        return self._origin + round((when - self._arrived) * _NANOSECONDS)


def _asked(call: Call) -> dict[str, str | bool]:
    return {
        names.OPERATION: OPERATION_NAMES[call.operation],
        names.REQUEST_MODEL: call.model,
        names.REQUEST_STREAM: call.stream,
        names.TENANT: call.tenant,
        names.TIER: call.tier,
    }

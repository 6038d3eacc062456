"""Where traces begin and where they go: OpenTelemetry's SDK exports them in batches, from its own thread."""

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from threading import Thread

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from gateway import __version__
from gateway.api.request import header
from gateway.parts import Parts
from gateway.tracing import names
from gateway.tracing.attempts import TraceAttempts, TracedTransport
from gateway.tracing.request import RequestTrace
from gateway.tracing.steps import TracedFacts
from gateway.upstreams import Upstream
from policies.ports import Clock
from policies.service import Service

_LOG = logging.getLogger(__name__)
_PATH = "/v1/traces"
_CARRIED = ("traceparent", "tracestate")
_EXPORT_TIMEOUT = 5.0
_LAST_CHANCE = 3.0
_LONGEST_ATTRIBUTE = 200
_PROPAGATOR = TraceContextTextMapPropagator()


class Tracing:
    """Exports to the collector at ``endpoint``. What it can't take is dropped, and no request waits for it.

    OpenTelemetry's own variables for samplers, headers, resources and batches (OTEL_*) hold.
    """

    def __init__(self, endpoint: str, clock: Clock, wall_time: Callable[[], float]) -> None:
        self._clock = clock
        self._wall_time = wall_time
        # It would tell of each attempt to reach a collector that is away; that it gave up is enough.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
        url = endpoint.rstrip("/")
        exporter = OTLPSpanExporter(url if url.endswith(_PATH) else url + _PATH, timeout=_EXPORT_TIMEOUT)
        own = Resource(
            {"service.name": "tidegate", "service.version": __version__, "process.pid": os.getpid()}
        )
        self._provider = TracerProvider(
            resource=own.merge(OTELResourceDetector().detect()),
            span_limits=SpanLimits(max_attribute_length=_LONGEST_ATTRIBUTE),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("tidegate", __version__)

    def around(self, parts: Parts) -> Parts:
        """The same parts, where facts of traced calls are told and requests upstream carry their trace."""
        return replace(parts, meter=TracedFacts(parts.meter), transport=TracedTransport(parts.transport))

    def attempts(self, service: Service, upstream: Upstream) -> Service:
        """A layer that has a span for each attempt at ``upstream``."""
        return TraceAttempts(service, upstream)

    def begin(self, scope: Scope, arrived: float) -> RequestTrace:
        """Begin the trace of a request, or go on with its client's."""
        carrier = {
            name: value.decode("latin-1") for name in _CARRIED if (value := header(scope, name.encode()))
        }
        parent = _PROPAGATOR.extract(carrier)
        wall_time = self._wall_time() - (self._clock.now() - arrived)
        method, path = scope["method"], scope["path"]
        span = self._tracer.start_span(
            f"{method} {path}",
            parent,
            SpanKind.SERVER,
            {names.METHOD: method, names.ROUTE: path},
            start_time=round(wall_time * 10**9),
        )
        return RequestTrace(
            span, parent, self._tracer, clock=self._clock, arrived=arrived, wall_time=wall_time
        )

    async def aclose(self) -> None:
        """Export what is left, if the collector takes it within a few seconds."""
        loop, over = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the loop was closed before
                loop.call_soon_threadsafe(over.set)

        Thread(target=end, daemon=True).start()
        try:
            async with asyncio.timeout(_LAST_CHANCE):
                await over.wait()
        except TimeoutError:
            _LOG.warning("the last traces are lost: the collector did not take them in %.0f s", _LAST_CHANCE)

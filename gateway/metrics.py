"""Prometheus series, fed by the facts that policies emit.

Names follow OpenTelemetry's GenAI conventions where these have one. Labels are bounded: a model is the
configured name or glob that it matched, a tenant is never a label. With several workers the values live
in shared files (prometheus-client's multiprocess mode), so that any worker answers for all.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from policies.facts import AttemptFinished, CallFinished, CallRefused, CallStarted, Fact
from policies.service import Call, Operation

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
_OVERHEAD_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)
_OPERATIONS = {
    Operation.CHAT: "chat",
    Operation.COMPLETION: "text_completion",
    Operation.EMBEDDING: "embeddings",
}
_MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """A ``Meter`` that counts; ``expose`` writes what it counted."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "tidegate_requests",
            "Requests to /v1 by how they ended.",
            ["operation", "model", "outcome"],
            registry=registry,
        )
        self._inflight = Gauge(
            "tidegate_inflight_requests",
            "Calls under way.",
            ["operation"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._duration = Histogram(
            "gen_ai_server_request_duration_seconds",
            "From a call's arrival to its end.",
            ["gen_ai_operation_name", "gen_ai_request_model"],
            registry=registry,
            buckets=_SECONDS,
        )
        self._first_event = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "From a call's arrival to the first content that its client got.",
            ["gen_ai_operation_name", "gen_ai_request_model"],
            registry=registry,
            buckets=_SECONDS,
        )
        self._tokens = Histogram(
            "gen_ai_client_token_usage",
            "Tokens of a call as the upstream counted them.",
            ["gen_ai_token_type", "gen_ai_request_model"],
            registry=registry,
            buckets=_TOKENS,
        )
        self._overhead = Histogram(
            "tidegate_overhead_seconds",
            "Time to the first content that was not spent waiting for upstreams.",
            ["operation"],
            registry=registry,
            buckets=_OVERHEAD_SECONDS,
        )
        self._attempts = Counter(
            "tidegate_upstream_attempts",
            "Attempts at upstreams by how they ended.",
            ["upstream", "model", "outcome"],
            registry=registry,
        )
        self._attempt_first_event = Histogram(
            "tidegate_upstream_first_token_seconds",
            "From an attempt's start to its first content.",
            ["upstream", "model"],
            registry=registry,
            buckets=_SECONDS,
        )
        self._observers: dict[type[Any], Callable[[Any], None]] = {
            CallRefused: self._call_refused,
            CallStarted: self._call_started,
            CallFinished: self._call_finished,
            AttemptFinished: self._attempt_finished,
        }
        # A child kept at hand costs a third of one looked up by its labels.
        self._child = lru_cache(maxsize=4096)(lambda series, *labels: series.labels(*labels))

    def emit(self, fact: Fact) -> None:
        """Count a fact; one that has no series is passed over."""
        observe = self._observers.get(type(fact))
        if observe is not None:
            observe(fact)

    def expose(self) -> bytes:
        """Write all series in Prometheus's text format, those of all workers where there are several."""
        if _MULTIPROCESS_DIR not in os.environ:
            return generate_latest(self.registry)
        collected = CollectorRegistry()
        MultiProcessCollector(collected)  # type: ignore[no-untyped-call]
        return generate_latest(collected)

    def _call_refused(self, fact: CallRefused) -> None:
        self._child(self._requests, _OPERATIONS[fact.operation], "other", fact.outcome).inc()

    def _call_started(self, fact: CallStarted) -> None:
        self._child(self._inflight, _OPERATIONS[fact.call.operation]).inc()

    def _call_finished(self, fact: CallFinished) -> None:
        call, child = fact.call, self._child
        operation, model = _OPERATIONS[call.operation], call.route
        child(self._inflight, operation).dec()
        child(self._requests, operation, model, fact.outcome).inc()
        child(self._duration, operation, model).observe(fact.duration)
        if fact.first_event is not None:
            child(self._first_event, operation, model).observe(fact.first_event)
            child(self._overhead, operation).observe(call.overhead(fact.first_event))
        if fact.usage is not None:
            child(self._tokens, "input", model).observe(fact.usage.input)
            child(self._tokens, "output", model).observe(fact.usage.output)

    def _attempt_finished(self, fact: AttemptFinished) -> None:
        attempt = fact.attempt
        model = self._upstream_model(fact.call, attempt.model)
        self._child(self._attempts, attempt.upstream, model, attempt.outcome).inc()
        if attempt.first_event is not None:
            self._child(self._attempt_first_event, attempt.upstream, model).observe(attempt.first_event)

    @staticmethod
    def _upstream_model(call: Call, model: str) -> str:
        """A model whose name came from the client is labelled with the glob that let it in."""
        return call.route if model == call.model else model

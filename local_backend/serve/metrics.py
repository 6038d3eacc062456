"""Prometheus metrics, in a registry of their own so that several apps can live in one process."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from local_backend.engine.admission import Admission
from local_backend.serve.reply import Outcome

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """Counters of what was served; `admission` is read whenever the metrics are."""

    def __init__(self, admission: Admission) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self._requests = Counter(
            "tidegate_local_requests",
            "Requests by endpoint and status",
            ["endpoint", "status"],
            registry=registry,
        )
        self._tokens = Counter("tidegate_local_tokens", "Tokens by kind", ["kind"], registry=registry)
        self._first_token = Histogram(
            "tidegate_local_time_to_first_token_seconds",
            "From arrival to the first token",
            buckets=_SECONDS,
            registry=registry,
        )
        open_sequences = Gauge(
            "tidegate_local_open_sequences", "Running and waiting sequences", registry=registry
        )
        open_sequences.set_function(lambda: admission.open)

    def record(self, endpoint: str, status: int, outcome: Outcome) -> None:
        """Count a finished request."""
        self._requests.labels(endpoint, str(status)).inc()
        self._tokens.labels("prompt").inc(outcome.prompt_tokens)
        self._tokens.labels("completion").inc(outcome.completion_tokens)
        if outcome.first_token_seconds is not None:
            self._first_token.observe(outcome.first_token_seconds)

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self._registry)

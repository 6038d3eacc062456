"""Prometheus metrics, in a registry of their own so that several apps can live in one process."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from local_backend.engine.engine import Engine
from local_backend.serve.reply import Outcome

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """Counters of what was served; the engine is asked for its load whenever they are read."""

    def __init__(self, engine: Engine) -> None:
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
        registry.register(_EngineCollector(engine))

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


class _EngineCollector(Collector):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def collect(self) -> Iterable[Metric]:
        load, admission = self._engine.load, self._engine.admission
        gauges = (
            ("open_sequences", "Running and waiting sequences", admission.open),
            ("running_sequences", "Sequences that are being generated", load.running),
            ("waiting_sequences", "Sequences that wait for a place or for blocks", load.waiting),
            ("cache_blocks", "Blocks of the latent cache", load.blocks),
            ("cache_free_blocks", "Blocks that no sequence holds", load.free_blocks),
            ("cache_prefix_blocks", "Blocks that hold a known prefix", load.cached_blocks),
            ("tokens_per_second", "Tokens generated a second of late", load.tokens_per_second),
            ("expected_wait_seconds", "What one more request would wait", admission.expected_wait()),
        )
        for name, text, value in gauges:
            yield GaugeMetricFamily(f"tidegate_local_{name}", text, value)
        counters = (
            ("prefilled_tokens", "Prompt tokens computed", load.prefilled),
            ("prefix_hit_tokens", "Prompt tokens found in the cache", load.prefix_hits),
            ("guessed_tokens", "Tokens checked ahead by speculation", load.guessed),
            ("guessed_right_tokens", "Of them, those that the answers have", load.guessed_right),
            ("preemptions", "Sequences put back to be computed again", load.preemptions),
            ("failed_sequences", "Sequences ended by a failure of their own", load.failures),
            ("flops", "Floating-point operations of ended sequences", load.flops),
            ("engine_restarts", "Times the engine started anew after a failure", load.restarts),
        )
        for name, text, value in counters:
            yield CounterMetricFamily(f"tidegate_local_{name}", text, value)
        joules = CounterMetricFamily(
            "tidegate_local_energy_joules",
            "Energy of ended sequences: of the counter nvml or rapl, or an estimate",
            labels=["source"],
        )
        joules.add_metric([load.energy_source], load.joules)
        yield joules

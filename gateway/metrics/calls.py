"""Series of calls: what clients asked for and what they got."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gateway.conventions import OPERATION_NAMES
from gateway.metrics.series import SECONDS, CounterTally, GaugeTally, HistogramTally, tally
from policies.errors import GatewayError
from policies.facts import CallFinished, CallRefused, CallStarted
from policies.service import CANCELLED, OK, Operation

_OVERHEAD_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)
_NOBODY = "nobody"
_BLAMED = (_NOBODY, "caller", "gateway", "upstream")


def _blames(error: type[GatewayError]) -> dict[str, str]:
    """Who is to blame for an error and for those below it, by the names of their classes."""
    found: dict[str, str] = {error.__name__: error.blame}
    for below in error.__subclasses__():
        found.update(_blames(below))
    return found


_BLAME = {OK: _NOBODY, CANCELLED: _NOBODY, **_blames(GatewayError)}


@dataclass(frozen=True, slots=True)
class _Kind:
    """What is counted of the calls of one operation for one model: together, since each look-up costs."""

    running: GaugeTally
    duration: HistogramTally
    first_event: HistogramTally
    overhead: HistogramTally
    queued: HistogramTally
    input: HistogramTally
    output: HistogramTally
    outcomes: dict[str, CounterTally] = field(default_factory=dict)


class CallSeries:
    """``observers`` maps a fact's type to what counts it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "tidegate_requests",
            "Requests to /v1 by how they ended.",
            ["operation", "model", "outcome"],
            registry=registry,
        )
        self._tiers = Counter(
            "tidegate_tier_requests",
            "Calls of each tier, by who is to blame for their failure: nobody, caller, gateway or upstream.",
            ["tier", "blame"],
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
            buckets=SECONDS,
        )
        self._first_event = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "From a call's arrival to the first content that its client got.",
            ["gen_ai_operation_name", "gen_ai_request_model"],
            registry=registry,
            buckets=SECONDS,
        )
        self._per_token = Histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Time for each token of a stream after the first.",
            ["gen_ai_operation_name", "gen_ai_request_model"],
            registry=registry,
            buckets=_TOKEN_SECONDS,
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
            "Time to an upstream's first content that was spent waiting for no upstream, turn or other call.",
            ["operation"],
            registry=registry,
            buckets=_OVERHEAD_SECONDS,
        )
        self._queued = Histogram(
            "tidegate_queue_seconds",
            "How long calls waited for their turn at an upstream, before retries too.",
            ["model"],
            registry=registry,
            buckets=SECONDS,
        )
        self._running = {
            operation: GaugeTally(self._inflight.labels(name)) for operation, name in OPERATION_NAMES.items()
        }
        self._kinds: dict[tuple[Operation, str], _Kind] = {}
        self._blamed: dict[tuple[str, str], CounterTally] = {}
        self.observers: dict[type[Any], Callable[[Any], None]] = {
            CallRefused: self._refused,
            CallStarted: self._started,
            CallFinished: self._finished,
        }

    def _refused(self, fact: CallRefused) -> None:
        tally(self._requests, OPERATION_NAMES[fact.operation], "other", fact.outcome).inc()

    def _started(self, fact: CallStarted) -> None:
        self._kind(fact.call.operation, fact.call.route).running.add(1)

    def _finished(self, fact: CallFinished) -> None:
        call, outcome = fact.call, fact.outcome
        trace = None if call.trace is None else call.trace.exemplar
        kind = self._kind(call.operation, call.route)
        kind.running.add(-1)
        (kind.outcomes.get(outcome) or self._outcome(kind, call.operation, call.route, outcome)).inc()
        blame = _BLAME.get(outcome, "gateway")
        (self._blamed.get((call.tier, blame)) or self._tier(call.tier, blame)).inc()
        kind.duration.observe(fact.duration, trace)
        if fact.first_event is not None:
            kind.first_event.observe(fact.first_event, trace)
            if call.attempts:  # else no upstream was asked for it
                kind.overhead.observe(call.overhead(fact.first_event), trace)
        if call.queued:
            kind.queued.observe(call.queued, trace)
        if fact.usage is not None:
            kind.input.observe(fact.usage.input, trace)
            kind.output.observe(fact.usage.output, trace)
            self._time_tokens(fact, trace)

    def _kind(self, operation: Operation, model: str) -> _Kind:
        kind = self._kinds.get((operation, model))
        if kind is None:
            name = OPERATION_NAMES[operation]
            kind = self._kinds[operation, model] = _Kind(
                running=self._running[operation],
                duration=tally(self._duration, name, model),
                first_event=tally(self._first_event, name, model),
                overhead=tally(self._overhead, name),
                queued=tally(self._queued, model),
                input=tally(self._tokens, "input", model),
                output=tally(self._tokens, "output", model),
            )
        return kind

    def _outcome(self, kind: _Kind, operation: Operation, model: str, outcome: str) -> CounterTally:
        found: CounterTally = tally(self._requests, OPERATION_NAMES[operation], model, outcome)
        kind.outcomes[outcome] = found
        return found

    def _tier(self, tier: str, blame: str) -> CounterTally:
        """All series of a tier begin together, at 0: a first failure is an increase."""
        self._blamed |= {(tier, who): tally(self._tiers, tier, who) for who in _BLAMED}
        return self._blamed[tier, blame]

    def _time_tokens(self, fact: CallFinished, trace: str | None) -> None:
        """Time the tokens of a stream that ended well; of a whole body the first came with the last."""
        call = fact.call
        if not call.stream or fact.outcome != OK or fact.usage is None or fact.first_event is None:
            return
        rest = fact.usage.output - 1
        if rest > 0:
            per_token = tally(self._per_token, OPERATION_NAMES[call.operation], call.route)
            per_token.observe((fact.duration - fact.first_event) / rest, trace)

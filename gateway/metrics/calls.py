"""Series of calls: what clients asked for and what they got."""

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gateway.conventions import OPERATION_NAMES
from gateway.metrics.series import SECONDS, child, tally
from policies.errors import GatewayError
from policies.facts import CallFinished, CallRefused, CallStarted
from policies.service import CANCELLED, OK

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
        self._known: set[str] = set()
        self.observers: dict[type[Any], Callable[[Any], None]] = {
            CallRefused: self._refused,
            CallStarted: self._started,
            CallFinished: self._finished,
        }

    def _refused(self, fact: CallRefused) -> None:
        tally(self._requests, OPERATION_NAMES[fact.operation], "other", fact.outcome).inc()

    def _started(self, fact: CallStarted) -> None:
        child(self._inflight, OPERATION_NAMES[fact.call.operation]).inc()

    def _finished(self, fact: CallFinished) -> None:
        call = fact.call
        operation, model = OPERATION_NAMES[call.operation], call.route
        child(self._inflight, operation).dec()
        tally(self._requests, operation, model, fact.outcome).inc()
        self._count_for(call.tier, _BLAME.get(fact.outcome, "gateway"))
        tally(self._duration, operation, model).observe(fact.duration)
        if fact.first_event is not None:
            tally(self._first_event, operation, model).observe(fact.first_event)
            if call.attempts:  # else no upstream was asked for it
                tally(self._overhead, operation).observe(call.overhead(fact.first_event))
        if call.queued:
            tally(self._queued, model).observe(call.queued)
        if fact.usage is not None:
            tally(self._tokens, "input", model).observe(fact.usage.input)
            tally(self._tokens, "output", model).observe(fact.usage.output)
            self._time_tokens(fact, operation, model)

    def _count_for(self, tier: str, blame: str) -> None:
        """Count a call of a tier. All of its series begin together, at 0: a first failure is an increase."""
        if tier not in self._known:
            self._known.add(tier)
            for who in _BLAMED:
                tally(self._tiers, tier, who)
        tally(self._tiers, tier, blame).inc()

    def _time_tokens(self, fact: CallFinished, operation: str, model: str) -> None:
        """Time the tokens of a stream that ended well; of a whole body the first came with the last."""
        if not fact.call.stream or fact.outcome != OK or fact.usage is None or fact.first_event is None:
            return
        rest = fact.usage.output - 1
        if rest > 0:
            tally(self._per_token, operation, model).observe((fact.duration - fact.first_event) / rest)

"""Series of upstreams: what was sent to them, what came of it, and how they are."""

from collections import Counter as Tally
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gateway.metrics.series import SECONDS, child, tally
from gateway.upstreams import UpstreamReport
from policies.facts import (
    AttemptFinished,
    AttemptRefused,
    HealthChanged,
    ProbeFinished,
    TimerExpired,
    UpstreamEjected,
)
from policies.health import HealthState

_PASSED_ON = "*"


class UpstreamSeries:
    """``observers`` maps a fact's type to what counts it; ``observe`` sets the gauges.

    A model whose name the client chose, behind a glob, is labelled ``*``.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._attempts = Counter(
            "tidegate_upstream_attempts",
            "Attempts at upstreams by how they ended.",
            ["upstream", "model", "outcome"],
            registry=registry,
        )
        self._first_event = Histogram(
            "tidegate_upstream_first_token_seconds",
            "From an attempt's start to its first content.",
            ["upstream", "model"],
            registry=registry,
            buckets=SECONDS,
        )
        self._held_back = Counter(
            "tidegate_upstream_held_back",
            "Attempts that were not sent, by what held them back: limit, hold-off or throttle.",
            ["upstream", "gate"],
            registry=registry,
        )
        self._expired = Counter(
            "tidegate_upstream_timeouts",
            "Upstreams that kept silent too long, by timer: first_token, stall or unary.",
            ["upstream", "timer"],
            registry=registry,
        )
        self._transitions = Counter(
            "tidegate_upstream_transitions",
            "Changes of an upstream's state, by the new one.",
            ["upstream", "state"],
            registry=registry,
        )
        self._ejections = Counter(
            "tidegate_upstream_ejections",
            "Times an upstream was taken out of rotation.",
            ["upstream"],
            registry=registry,
        )
        self._probes = Counter(
            "tidegate_upstream_probes",
            "Probes of upstreams that are out, by what came of them.",
            ["upstream", "kind", "outcome"],
            registry=registry,
        )
        self._state = self._gauge(
            registry, "state", "Workers that see the upstream in this state.", "upstream", "model", "state"
        )
        self._limit = self._gauge(
            registry, "limit", "Concurrency found to be allowed, of all workers.", "upstream", "model"
        )
        self._inflight = self._gauge(
            registry, "inflight", "Attempts under way, of all workers.", "upstream", "model"
        )
        self._waiting = self._gauge(
            registry, "waiting", "Calls that wait for a permit, of all workers.", "upstream", "model"
        )
        self._known: set[tuple[str, str]] = set()
        self.observers: dict[type[Any], Callable[[Any], None]] = {
            AttemptFinished: self._attempt_finished,
            AttemptRefused: lambda fact: child(self._held_back, fact.upstream, fact.gate).inc(),
            TimerExpired: lambda fact: child(self._expired, fact.upstream, fact.timer).inc(),
            HealthChanged: lambda fact: child(self._transitions, fact.upstream, fact.after).inc(),
            UpstreamEjected: lambda fact: child(self._ejections, fact.upstream).inc(),
            ProbeFinished: lambda fact: child(self._probes, fact.upstream, fact.kind, fact.outcome).inc(),
        }

    def observe(self, reports: Iterable[UpstreamReport]) -> None:
        """Set the gauges to what this worker sees.

        Those of a model passed on add up; an upstream that a reload took away has nothing.
        """
        states: Tally[tuple[str, str, str]] = Tally()
        sums: dict[Gauge, Tally[tuple[str, str]]] = {
            self._limit: Tally(),
            self._inflight: Tally(),
            self._waiting: Tally(),
        }
        for known in self._known:
            states.update({(*known, state.value): 0 for state in HealthState})
            for totals in sums.values():
                totals[known] = 0
        for report in reports:
            key = (report.upstream, _PASSED_ON if report.passed_on else report.model)
            self._known.add(key)
            states.update({(*key, state.value): int(state.value == report.state) for state in HealthState})
            sums[self._limit][key] += report.limit
            sums[self._inflight][key] += report.inflight
            sums[self._waiting][key] += report.waiting
        for state_labels, count in states.items():
            child(self._state, *state_labels).set(count)
        for gauge, totals in sums.items():
            for labels, total in totals.items():
                child(gauge, *labels).set(total)

    @staticmethod
    def _gauge(registry: CollectorRegistry, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(
            f"tidegate_upstream_{name}", what, labels, registry=registry, multiprocess_mode="livesum"
        )

    def _attempt_finished(self, fact: AttemptFinished) -> None:
        attempt = fact.attempt
        model = _PASSED_ON if attempt.model == fact.call.model != fact.call.route else attempt.model
        tally(self._attempts, attempt.upstream, model, attempt.outcome).inc()
        if attempt.first_event is not None:
            trace = None if fact.call.trace is None else fact.call.trace.exemplar
            tally(self._first_event, attempt.upstream, model).observe(attempt.first_event, trace)

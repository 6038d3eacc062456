"""Series of what was done about failures: retries, failovers, hedges and rescues."""

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from gateway.metrics.series import child
from policies.facts import (
    BalancePanicked,
    FailedOver,
    Hedged,
    HedgeFinished,
    RetryRefused,
    RetryScheduled,
    StreamRescued,
)


class RecoverySeries:
    """``observers`` maps a fact's type to what counts it. ``model`` is the configured name or glob."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"tidegate_{name}", what, ("model", *labels), registry=registry)

        retries = counter("retries", "Attempts made again, by the failure before.", "failure")
        refused = counter("retries_refused", "Retries that the budget didn't allow.", "failure")
        failovers = counter("failovers", "Calls that went on to a later step of their route.", "failure")
        hedges = counter("hedges", "Second attempts for a late first token.")
        races = counter("hedge_outcomes", "How hedges ended: won, lost or their error.", "outcome")
        rescues = counter(
            "rescues",
            "Streams that broke after content, by what came of them.",
            "outcome",
        )
        panics = counter("panics", "Upstreams tried before their time because all others were out.")
        self._budget = Gauge(
            "tidegate_retry_budget",
            "Retries and hedges that a step of a route may still cost, of all workers.",
            ["model", "step"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._known: set[tuple[str, int]] = set()
        self.observers: dict[type[Any], Callable[[Any], None]] = {
            RetryScheduled: lambda fact: child(retries, fact.call.route, fact.failure).inc(),
            RetryRefused: lambda fact: child(refused, fact.call.route, fact.failure).inc(),
            FailedOver: lambda fact: child(failovers, fact.call.route, fact.failure).inc(),
            Hedged: lambda fact: child(hedges, fact.call.route).inc(),
            HedgeFinished: lambda fact: child(races, fact.call.route, fact.outcome).inc(),
            StreamRescued: lambda fact: child(rescues, fact.call.route, fact.outcome).inc(),
            BalancePanicked: lambda fact: child(panics, fact.call.route).inc(),
        }

    def observe(self, budgets: Mapping[tuple[str, int], float]) -> None:
        """Set what is left of each step's budget; a step that a reload took away has nothing."""
        self._known |= budgets.keys()
        for model, step in self._known:
            child(self._budget, model, str(step)).set(budgets.get((model, step), 0.0))

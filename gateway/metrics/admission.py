"""Series of admission: who waits, who is sent away, what each tier has running, how far estimates are off."""

from collections import Counter as Tally
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gateway.metrics.series import SECONDS, child, tally
from policies.facts import CallAdmitted, CallShed


class AdmissionSeries:
    """``observers`` maps a fact's type to what counts it; ``observe`` sets the gauges.

    A tier that nobody defined counts to ``default``.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        waits = Histogram(
            "tidegate_admission_wait_seconds",
            "How long calls that had to wait for a seat waited until they got one.",
            ["tier"],
            registry=registry,
            buckets=SECONDS,
        )
        shed = Counter(
            "tidegate_admission_shed",
            "Calls told to come back later, by reason: late, full, tier, deadline or max_wait.",
            ["tier", "reason"],
            registry=registry,
        )
        self._running = self._gauge(registry, "running", "Calls that have a seat, of all workers.")
        self._waiting = self._gauge(registry, "waiting", "Calls that wait for a seat, of all workers.")
        self._errors = Gauge(
            "tidegate_token_estimate_error_ratio",
            "Mean error of the estimates of prompts lately, as a share, of the worker that errs most.",
            ["model"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.observers: dict[type[Any], Callable[[Any], None]] = {
            CallAdmitted: lambda fact: tally(waits, fact.tier).observe(
                fact.waited, None if fact.call.trace is None else fact.call.trace.exemplar
            ),
            CallShed: lambda fact: child(shed, fact.tier, fact.reason).inc(),
        }
        self._known: set[str] = set()

    def observe(self, running: Tally[str], waiting: Tally[str], errors: Mapping[str, float]) -> None:
        """Set the gauges; a tier that is gone has nothing."""
        for model, error in errors.items():
            child(self._errors, model).set(error)
        self._known |= running.keys()
        for tier in self._known:
            child(self._running, tier).set(running[tier])
            child(self._waiting, tier).set(waiting[tier])

    @staticmethod
    def _gauge(registry: CollectorRegistry, name: str, what: str) -> Gauge:
        return Gauge(
            f"tidegate_admission_{name}", what, ["tier"], registry=registry, multiprocess_mode="livesum"
        )

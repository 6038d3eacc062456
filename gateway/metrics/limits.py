"""Series of limits: who was refused, how good the reservations were, and the store that counts."""

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gateway.metrics.series import child, tally
from policies.facts import LimitReached, ReservationSettled, SettlementLost, StoreChanged

_RATIOS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2, 4)


class LimitSeries:
    """``observers`` maps a fact's type to what counts it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._refusals = Counter(
            "tidegate_limit_refusals",
            "Calls that a limit turned away, by what it counts and whose it is: key, tenant or tier.",
            ["dimension", "scope"],
            registry=registry,
        )
        self._reserved = Histogram(
            "tidegate_reservation_used_ratio",
            "Tokens that a call used, as a part of those that were reserved for it; above 1 is debt.",
            registry=registry,
            buckets=_RATIOS,
        )
        self._degraded = Gauge(
            "tidegate_store_degraded",
            "Workers whose shared store is away, so that each counts its part of the limits.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._outages = Counter(
            "tidegate_store_outages", "Times a shared store went away.", registry=registry
        )
        self._lost = Counter(
            "tidegate_settlements_lost",
            "Corrections that could not be written, so that an estimate stays charged.",
            registry=registry,
        )
        self.observers: dict[type[Any], Callable[[Any], None]] = {
            LimitReached: self._reached,
            ReservationSettled: self._settled,
            StoreChanged: self._changed,
            SettlementLost: lambda _: self._lost.inc(),
        }

    def _reached(self, fact: LimitReached) -> None:
        child(self._refusals, str(fact.dimension), _scope(fact.bucket)).inc()

    def _settled(self, fact: ReservationSettled) -> None:
        used = fact.used.input + fact.used.output
        reserved = fact.reserved.input + fact.reserved.output
        if used and reserved:  # else nobody answered, which says nothing of the estimate
            tally(self._reserved).observe(used / reserved)

    def _changed(self, fact: StoreChanged) -> None:
        self._degraded.set(int(fact.degraded))
        if fact.degraded:
            self._outages.inc()


def _scope(bucket: str) -> str:
    """Whose limit it is, from the bucket's key: tidegate:{tenant}:tier:free:requests:minute."""
    return bucket.rpartition("}:")[2].partition(":")[0]

"""Prometheus series, fed by the facts that policies emit.

Names follow OpenTelemetry's GenAI conventions where these have one. Labels are bounded: a model is the
configured name or glob that it matched, a tenant is never a label. With several workers the values live
in shared files (prometheus-client's multiprocess mode), so that any worker answers for all.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client.registry import Collector

from gateway.cache.tiers import TierSize
from gateway.clock import wall_time
from gateway.metrics.admission import AdmissionSeries
from gateway.metrics.caches import CacheSeries, CacheTotals, totals
from gateway.metrics.calls import CallSeries
from gateway.metrics.exemplars import Exemplars, Exemplified
from gateway.metrics.ledger import LedgerSeries
from gateway.metrics.limits import LimitSeries
from gateway.metrics.recovery import RecoverySeries
from gateway.metrics.series import flush
from gateway.metrics.upstreams import UpstreamSeries
from gateway.metrics.workers import OfAllWorkers
from gateway.upstreams import UpstreamReport
from policies.facts import Fact

_MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"


class Metrics:
    """A ``Meter`` that counts; ``expose`` writes what it counted."""

    def __init__(self, wall_time: Callable[[], float] = wall_time) -> None:
        several = os.environ.get(_MULTIPROCESS_DIR)
        self._exemplars = Exemplars(wall_time, None if several is None else Path(several))
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._upstreams = UpstreamSeries(self.registry)
        self._recovery = RecoverySeries(self.registry)
        self._admission = AdmissionSeries(self.registry)
        self._caches = CacheSeries(self.registry)
        self._observers: dict[type[Any], Callable[[Any], None]] = {
            **CallSeries(self.registry).observers,
            **self._upstreams.observers,
            **self._recovery.observers,
            **self._admission.observers,
            **self._caches.observers,
            **LimitSeries(self.registry).observers,
            **LedgerSeries(self.registry).observers,
        }

    def emit(self, fact: Fact) -> None:
        """Count a fact; one that has no series is passed over."""
        observe = self._observers.get(type(fact))
        if observe is not None:
            observe(fact)

    def observe(
        self,
        reports: Iterable[UpstreamReport],
        budgets: Mapping[tuple[str, int], float],
        calls: tuple[Counter[str], Counter[str]],
        errors: Mapping[str, float],
    ) -> None:
        """Once a second: set the gauges, and write out for all workers to read what was tallied.

        The gauges are of upstreams, retry budgets, tiers' running and waiting calls, and token estimates.
        """
        self._upstreams.observe(reports)
        self._recovery.observe(budgets)
        self._admission.observe(*calls, errors)
        self._write()

    def observe_cache(self, sizes: Mapping[str, TierSize]) -> None:
        """Set the gauges that tell how full the cache's tiers are."""
        self._caches.observe(sizes)

    def cache_totals(self) -> CacheTotals:
        """What all workers counted of their caches."""
        return totals(self._of_all_workers())

    def collected(self, *others: Collector) -> Collector:
        """All series, those of all workers where there are several, and what ``others`` tell."""
        counted = self._of_all_workers()
        return Exemplified([counted, *others], self._exemplars.all())

    def expose(self) -> bytes:
        """Write all series in Prometheus's text format."""
        return generate_latest(self.collected())

    def _of_all_workers(self) -> Collector:
        self._write()
        folder = os.environ.get(_MULTIPROCESS_DIR)
        return self.registry if folder is None else OfAllWorkers(folder)

    def _write(self) -> None:
        """Write out what was tallied, for all workers to read."""
        flush()
        self._exemplars.gather()

"""Series of the usage ledger: what was used, what it cost and took, and whether it is written down."""

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from gateway import energy
from gateway.metrics.series import child
from gateway.prices import UNIT
from policies.facts import EnergyCounted, LedgerFlushed, UsageCounted


class LedgerSeries:
    """``observers`` maps a fact's type to what counts it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._tokens = Counter(
            "tidegate_usage_tokens",
            "Tokens of finished requests, as in the ledger: input, cached_input as a part of it, output, and "
            "reasoning as a part of that.",
            ["model", "tier", "type"],
            registry=registry,
        )
        self._cost = Counter(
            "tidegate_usage_cost_dollars",
            "What finished requests cost, as far as prices are known.",
            ["model", "tier"],
            registry=registry,
        )
        self._unpriced = Counter(
            "tidegate_usage_unpriced",
            "Requests whose cost isn't known, for want of a price.",
            ["model", "tier"],
            registry=registry,
        )
        self._energy = Counter(
            "tidegate_energy_joules",
            "Energy of calls at each upstream; source is measured, by its machine's counter, or estimated.",
            ["upstream", "model", "source"],
            registry=registry,
        )
        self._wasted = Counter(
            "tidegate_energy_wasted_joules",
            "The part of the energy that brought no answer: attempts that failed, lost or were cancelled.",
            ["upstream", "model"],
            registry=registry,
        )
        self._flops = Counter(
            "tidegate_usage_flops",
            "Floating-point operations of calls, where the upstream tells them, as the bundled model does.",
            ["upstream", "model"],
            registry=registry,
        )
        self._written = Counter(
            "tidegate_ledger_rows_written", "Rows written to the usage ledger.", registry=registry
        )
        self._dropped = Counter(
            "tidegate_ledger_rows_dropped",
            "Rows of the usage ledger that were lost: too many waited, or the database refused them.",
            registry=registry,
        )
        self._failures = Counter(
            "tidegate_ledger_write_failures",
            "Times that the database didn't take a batch of the usage ledger, which was then kept.",
            registry=registry,
        )
        self._waiting = Gauge(
            "tidegate_ledger_rows_waiting",
            "Rows of the usage ledger that aren't written yet.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.observers: dict[type[Any], Callable[[Any], None]] = {
            UsageCounted: self._counted,
            EnergyCounted: self._took,
            LedgerFlushed: self._flushed,
        }

    def _counted(self, fact: UsageCounted) -> None:
        usage = fact.usage
        for kind, count in (
            ("input", usage.input),
            ("cached_input", usage.cached_input),
            ("output", usage.output),
            ("reasoning", usage.reasoning),
        ):
            if count:
                child(self._tokens, fact.model, fact.tier, kind).inc(count)
        if fact.cost:
            child(self._cost, fact.model, fact.tier).inc(fact.cost / UNIT)
        if fact.unpriced:
            child(self._unpriced, fact.model, fact.tier).inc(fact.unpriced)

    def _took(self, fact: EnergyCounted) -> None:
        source = "measured" if fact.measured else "estimated"
        child(self._energy, fact.upstream, fact.model, source).inc(fact.energy / energy.UNIT)
        child(self._wasted, fact.upstream, fact.model).inc(fact.wasted / energy.UNIT)
        if fact.flops:
            child(self._flops, fact.upstream, fact.model).inc(fact.flops)

    def _flushed(self, fact: LedgerFlushed) -> None:
        self._written.inc(fact.written)
        self._dropped.inc(fact.dropped)
        self._failures.inc(fact.away)
        self._waiting.set(fact.waiting)

"""Series of the cache: what it answered, what it holds, and what it had to let go."""

from collections import Counter as Tally
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.registry import Collector

from gateway.cache.disk import NAME as DISK
from gateway.cache.redis import NAME as REDIS
from gateway.cache.tiers import MEMORY, TierSize
from gateway.metrics.series import child, tally
from policies.facts import (
    CacheAsked,
    CacheDropped,
    CacheEvicted,
    CacheRefreshed,
    CallCoalesced,
    PromptEmbedded,
    SemanticLooked,
    SemanticVerified,
)
from policies.service import CacheState

_WHY_EVICTED = ("full", "expired", "purged")
_WHY_DROPPED = {
    MEMORY: ("oversized",),
    DISK: ("corrupt", "oversized", "busy", "unreachable"),
    REDIS: ("corrupt", "oversized", "full", "busy", "unreachable"),
}
_AGES = (1, 10, 60, 300, 900, 3600, 4 * 3600, 86400, 3 * 86400)


class CacheSeries:
    """``observers`` maps a fact's type to what counts it. ``model`` is the configured name or glob."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._asked = Counter(
            "tidegate_cache_requests",
            "Calls of models with a cache: hit, stale, semantic, miss or bypass, and the tier that answered.",
            ["model", "state", "tier"],
            registry=registry,
        )
        self._age = Histogram(
            "tidegate_cache_age_seconds",
            "How old the answers were that the cache gave.",
            ["model"],
            registry=registry,
            buckets=_AGES,
        )
        self._saved = Counter(
            "tidegate_cache_saved_tokens",
            "Tokens that no upstream had to be asked for again.",
            ["model", "type"],
            registry=registry,
        )
        coalesced = Counter(
            "tidegate_cache_coalesced",
            "Calls answered with what another call was fetching, in this process or at another replica.",
            ["model", "among"],
            registry=registry,
        )
        refreshes = Counter(
            "tidegate_cache_refreshes",
            "Stale answers asked for anew, and semantic hits verified, by how that ended.",
            ["model", "outcome"],
            registry=registry,
        )
        evictions = Counter(
            "tidegate_cache_evictions",
            "Answers that had to go: full, expired or purged.",
            ["tier", "why"],
            registry=registry,
        )
        # Series whose labels are known are there from the start: a rate needs to see the first one come.
        for tier, why in product((MEMORY, DISK), _WHY_EVICTED):
            evictions.labels(tier, why)
        dropped = Counter(
            "tidegate_cache_dropped",
            "Answers not taken or not given: corrupt, oversized, full, busy or unreachable.",
            ["tier", "why"],
            registry=registry,
        )
        for tier, reasons in _WHY_DROPPED.items():
            for why in reasons:
                dropped.labels(tier, why)
        embedded = Counter(
            "tidegate_cache_embeddings",
            "Texts whose vector the semantic cache asked an upstream for, by how that ended.",
            ["model", "outcome"],
            registry=registry,
        )
        looked = Counter(
            "tidegate_cache_semantic_lookups",
            "Looks for a similar prompt's answer: hit, explored, far, guarded, unsuited, expired or busy.",
            ["model", "result"],
            registry=registry,
        )
        verified = Counter(
            "tidegate_cache_semantic_verified",
            "Answers to similar prompts compared with the true ones: hit or explored, same or other.",
            ["model", "what", "verdict"],
            registry=registry,
        )
        self._sizes = {MEMORY: _sizes(registry, MEMORY, "livesum"), DISK: _sizes(registry, DISK, "livemax")}
        self.observers: dict[type[Any], Callable[[Any], None]] = {
            CacheAsked: self._count,
            CallCoalesced: lambda fact: child(coalesced, fact.call.route, fact.among).inc(),
            CacheRefreshed: lambda fact: child(refreshes, fact.call.route, fact.outcome).inc(),
            CacheEvicted: lambda fact: child(evictions, fact.tier, fact.why).inc(fact.count),
            CacheDropped: lambda fact: child(dropped, fact.tier, fact.why).inc(),
            PromptEmbedded: lambda fact: child(embedded, fact.call.route, fact.outcome).inc(),
            SemanticLooked: lambda fact: child(looked, fact.call.route, fact.result).inc(),
            SemanticVerified: lambda fact: child(
                verified,
                fact.call.route,
                "hit" if fact.given else "explored",
                "same" if fact.same else "other",
            ).inc(),
        }

    def observe(self, sizes: Mapping[str, TierSize]) -> None:
        """Set how full the tiers are."""
        for tier, size in sizes.items():
            entries, taken = self._sizes[tier]
            entries.set(size.entries)
            taken.set(size.bytes)

    def _count(self, fact: CacheAsked) -> None:
        status, model = fact.status, fact.call.route
        tally(self._asked, model, status.state.value, status.tier).inc()
        if status.served:
            tally(self._age, model).observe(status.age)
        if status.saved is not None:
            child(self._saved, model, "input").inc(status.saved.input)
            child(self._saved, model, "output").inc(status.saved.output)


def _sizes(
    registry: CollectorRegistry, tier: str, mode: Literal["livesum", "livemax"]
) -> tuple[Gauge, Gauge]:
    """Entries and bytes of a tier: each worker has its own memory, and they share the disk."""
    entries, taken = (
        Gauge(
            f"tidegate_cache_{tier}_{what}",
            f"{text} on {tier}." if tier == DISK else f"{text} in the memory of all workers.",
            registry=registry,
            multiprocess_mode=mode,
        )
        for what, text in (("entries", "Answers held"), ("bytes", "Room that answers take"))
    )
    return entries, taken


@dataclass(slots=True)
class CacheTotals:
    """What all workers counted: calls by model and state, answers lost by why, and how full tiers are."""

    states: dict[str, dict[str, int]] = field(default_factory=dict)
    evicted: Tally[str] = field(default_factory=Tally)
    dropped: Tally[str] = field(default_factory=Tally)
    sizes: dict[str, TierSize] = field(default_factory=dict)

    def hit_rate(self, model: str) -> float:
        """Of the calls that take part, how many the cache answered; 0 before the first."""
        states = self.states[model]
        asked = sum(states.values()) - states[CacheState.BYPASS]
        return (asked - states[CacheState.MISS]) / asked if asked else 0.0


def totals(collected: Collector) -> CacheTotals:
    """Add up series that speak for all workers."""
    found = CacheTotals()
    gauges: dict[str, int] = {}
    for family in collected.collect():
        for sample in family.samples:
            labels, value = sample.labels, int(sample.value)
            if sample.name == "tidegate_cache_requests_total":
                states = found.states.setdefault(labels["model"], {state.value: 0 for state in CacheState})
                states[labels["state"]] += value
            elif sample.name == "tidegate_cache_evictions_total":
                found.evicted[labels["why"]] += value
            elif sample.name == "tidegate_cache_dropped_total":
                found.dropped[labels["why"]] += value
            else:
                gauges[sample.name] = value
    for tier in (MEMORY, DISK):
        entries = gauges.get(f"tidegate_cache_{tier}_entries", 0)
        found.sizes[tier] = TierSize(entries, gauges.get(f"tidegate_cache_{tier}_bytes", 0))
    return found

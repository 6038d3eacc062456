"""The queues before the upstreams: one for each set of upstreams that calls can go to.

Names that lead to the same upstreams share a queue, so that tiers and tenants are weighed against each
other whichever name they ask for. Routes that share only some keep queues of their own: in one queue a
call could hold up others whose upstreams are free. They take turns at what they share.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from weakref import WeakValueDictionary

from gateway.parts import Parts
from gateway.settings import DEFAULT_TIER, Tier
from gateway.upstreams import Upstream
from policies.fairqueue import AdmissionOptions
from policies.seating import Seating
from policies.seats import RouteSeats
from policies.tiers import TierOptions


class Queues:
    """All queues of a worker. They outlive a reload as long as their upstreams do."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._tiers: Mapping[str, TierOptions] = {}
        self._known: WeakValueDictionary[frozenset[Upstream], Seating] = WeakValueDictionary()

    def before(self, upstreams: Iterable[Upstream]) -> Seating:
        """The queue of those who wait for one of these."""
        key = frozenset(upstreams)
        seating = self._known.get(key)
        if seating is None:
            parts = self._parts
            seating = self._known[key] = Seating(
                AdmissionOptions(self._tiers),
                seats=RouteSeats([(upstream.permits, upstream.health) for upstream in key]),
                clock=parts.clock,
                rng=parts.rng,
                meter=parts.meter,
            )
        return seating

    def rule(self, tiers: Mapping[str, Tier]) -> None:
        """From now on these tiers hold, also for those who wait already."""
        self._tiers = {
            name: TierOptions(share=tier.share or 0.0, weight=tier.weight, max_wait=tier.queue.max_wait)
            for name, tier in tiers.items()
        }
        for seating in list(self._known.values()):
            seating.rule(self._tiers)

    def weight(self, tier: str) -> float:
        """What a tier weighs against others."""
        options = self._tiers.get(tier) or self._tiers.get(DEFAULT_TIER)
        return 1.0 if options is None else options.weight

    def counts(self) -> tuple[Counter[str], Counter[str]]:
        """How many calls of each tier are under way, and how many wait."""
        running: Counter[str] = Counter()
        waiting: Counter[str] = Counter()
        for seating in list(self._known.values()):
            for tier in seating.queue.tiers.values():
                running[tier.name] += tier.running
                waiting[tier.name] += tier.waiting
        return running, waiting

"""What calls need of their senders' limits: which buckets, how many tokens at most, and at what price.

What limits a key is worked out once and kept until its tier, its tenant or itself changes.
"""

from collections.abc import Callable, Mapping

from gateway.estimates import TokenEstimates
from gateway.prices import UNIT, Tariffs
from gateway.settings import ASKED, UTC, Model, Target
from gateway.stores.keys import Key
from gateway.tiers import Tiers
from policies.limits import Allotment, Claim
from policies.ratelimit import bucket_for
from policies.service import Call, Reply, Usage

_MOST_KEYS = 100_000
_MOST_MODELS = 1024
_PRICES_HOLD = 10.0
"""Seconds: prices change by the hour, if they do."""


class Claims:
    """``tiers`` says what is limited. ``declare`` tells where models lead and what their tokens cost."""

    def __init__(self, tiers: Tiers, estimates: TokenEstimates, wall_time: Callable[[], float]) -> None:
        self._tiers = tiers
        self._estimates = estimates
        self._wall_time = wall_time
        self._allotments: dict[str, tuple[Key, Allotment | None]] = {}
        self._revision = -1
        self._targets: Mapping[str, tuple[Target, ...]] = {}
        self._tariffs = Tariffs({})
        self._prices: dict[tuple[str, str], tuple[float, tuple[float, float]]] = {}

    def declare(self, models: Mapping[str, Model], tariffs: Tariffs) -> None:
        """Replace the routes and the prices."""
        self._targets = {
            name: tuple(target for step in model.route for target in step) for name, model in models.items()
        }
        self._tariffs = tariffs
        self._prices.clear()

    def allotment_of(self, key: Key) -> Allotment | None:
        """All that limits this key: its own limits, its tenant's and its tier's. None where nothing does."""
        if self._revision != self._tiers.revision or len(self._allotments) > _MOST_KEYS:
            self._allotments.clear()
            self._revision = self._tiers.revision
        known = self._allotments.get(key.id)
        if known is None or known[0] is not key:
            known = self._allotments[key.id] = key, self._work_out(key)
        return known[1]

    def __call__(self, call: Call) -> Claim | None:
        """What the call needs; None where nothing limits it."""
        allotment = call.allotment
        if allotment is None:
            return None
        if not allotment.estimated:
            return Claim(allotment)
        estimate = self._estimates(call)
        output = estimate.asked
        if output is None:
            output = int(min(estimate.output, allotment.output_cap))
        reserved = Usage(estimate.input, output)
        if not allotment.priced:
            return Claim(allotment, reserved)
        input_price, output_price = self._dearest(call)
        return Claim(allotment, reserved, input_price, output_price, self._spent)

    def _work_out(self, key: Key) -> Allotment | None:
        tenant, tier = self._tiers.tenant(key.tenant), self._tiers.tier(key.tier)
        zone = tenant.zone or tier.zone or UTC
        scopes = ((f"tier:{key.tier}", tier.limits), ("tenant", tenant.limits), (f"key:{key.id}", key.limits))
        tag = _plain(key.tenant)
        buckets = tuple(
            bucket_for(limit, tag=tag, scope=_plain(scope))
            for scope, limits in scopes
            if limits is not None
            for limit in limits.of(zone)
        )
        return Allotment(buckets) if buckets else None

    def _dearest(self, call: Call) -> tuple[float, float]:
        """The most that a token in and a token out may cost, in dollars, whoever answers."""
        now = self._wall_time()
        known = self._prices.get((call.route, call.model))
        if known is not None and now < known[0]:
            return known[1]
        input_price = output_price = 0.0
        for target in self._targets.get(call.route, ()):
            model = call.model if target.model == ASKED else target.model
            prices = self._tariffs.of(target.provider, model).per_token(now)
            input_price, output_price = max(input_price, prices[0]), max(output_price, prices[1])
        if len(self._prices) > _MOST_MODELS:
            self._prices.clear()
        self._prices[call.route, call.model] = now + _PRICES_HOLD, (input_price, output_price)
        return input_price, output_price

    def _spent(self, reply: Reply, usage: Usage) -> float:
        """What an answer cost, in dollars. One whose price nobody told costs nothing that is known."""
        cost = self._tariffs.of(reply.upstream, reply.model).cost(usage, self._wall_time())
        return 0.0 if cost is None else cost / UNIT


def _plain(name: str) -> str:
    """``name`` without the braces, which mean something to Redis Cluster."""
    return name.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")

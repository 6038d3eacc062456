"""What calls need of their senders' limits: which buckets, how many tokens at most, and at what price.

The buckets of a key are worked out once and kept until its tier, its tenant or itself changes.
"""

from collections.abc import Callable, Mapping

from gateway.estimates import TokenEstimates
from gateway.prices import UNIT, Tariffs
from gateway.settings import ASKED, UTC, Limits, Model, Target
from gateway.stores.keys import Key
from gateway.tiers import Tiers
from policies.limits import Claim
from policies.ratelimit import Bucket, Dimension, bucket_for, output_reserve
from policies.service import Call, Reply, Usage

_IN_TOKENS = {Dimension.INPUT, Dimension.OUTPUT, Dimension.TOKENS, Dimension.SPEND}
_MOST_KEYS = 100_000


class Claims:
    """``tiers`` says what is limited. ``declare`` tells where models lead and what their tokens cost."""

    def __init__(self, tiers: Tiers, estimates: TokenEstimates, wall_time: Callable[[], float]) -> None:
        self._tiers = tiers
        self._estimates = estimates
        self._wall_time = wall_time
        self._buckets: dict[str, tuple[Key, tuple[Bucket, ...]]] = {}
        self._revision = -1
        self._targets: Mapping[str, tuple[Target, ...]] = {}
        self._tariffs = Tariffs({})

    def declare(self, models: Mapping[str, Model], tariffs: Tariffs) -> None:
        """Replace the routes and the prices."""
        self._targets = {
            name: tuple(target for step in model.route for target in step) for name, model in models.items()
        }
        self._tariffs = tariffs

    def buckets_of(self, key: Key) -> tuple[Bucket, ...]:
        """Everything that counts what this key uses: its own limits, its tenant's and its tier's."""
        if self._revision != self._tiers.revision or len(self._buckets) > _MOST_KEYS:
            self._buckets.clear()
            self._revision = self._tiers.revision
        known = self._buckets.get(key.id)
        if known is None or known[0] is not key:
            known = self._buckets[key.id] = key, self._work_out(key)
        return known[1]

    def __call__(self, call: Call) -> Claim | None:
        """What the call needs; None where nothing limits it."""
        buckets = call.buckets
        if not buckets:
            return None
        priced = counted = False
        for bucket in buckets:
            dimension = bucket.limit.dimension
            counted = counted or dimension in _IN_TOKENS
            priced = priced or dimension is Dimension.SPEND
        if not counted:
            return Claim(buckets)
        estimate = self._estimates(call)
        output = output_reserve(estimate.asked, estimate.output, [bucket.limit for bucket in buckets])
        reserved = Usage(estimate.input, output)
        if not priced:
            return Claim(buckets, reserved)
        input_price, output_price = self._dearest(call)
        return Claim(buckets, reserved, input_price, output_price, self._spent)

    def _work_out(self, key: Key) -> tuple[Bucket, ...]:
        tenant, tier = self._tiers.tenant(key.tenant), self._tiers.tier(key.tier)
        zone = tenant.zone or tier.zone or UTC
        scopes = ((f"tier:{key.tier}", tier.limits), ("tenant", tenant.limits), (f"key:{key.id}", key.limits))
        tag = _tag(key.tenant)
        return tuple(
            bucket_for(limit, tag=tag, scope=_tag(scope))
            for scope, limits in scopes
            for limit in (limits or Limits()).of(zone)
        )

    def _dearest(self, call: Call) -> tuple[float, float]:
        """The most that a token in and a token out may cost, in dollars, whoever answers."""
        now = self._wall_time()
        input_price = output_price = 0.0
        for target in self._targets.get(call.route, ()):
            model = call.model if target.model == ASKED else target.model
            prices = self._tariffs.of(target.provider, model).per_token(now)
            input_price, output_price = max(input_price, prices[0]), max(output_price, prices[1])
        return input_price, output_price

    def _spent(self, reply: Reply, usage: Usage) -> float:
        """What an answer cost, in dollars. One whose price nobody told costs nothing that is known."""
        cost = self._tariffs.of(reply.upstream, reply.model).cost(usage, self._wall_time())
        return 0.0 if cost is None else cost / UNIT


def _tag(name: str) -> str:
    """``name`` without the braces, which mean something to Redis Cluster."""
    return name.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")

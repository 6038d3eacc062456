import pytest

from gateway.claims import Claims
from gateway.estimates import TokenEstimates
from gateway.prices import Tariffs
from gateway.settings import Limits, Model, Provider, Tenant, Tier
from gateway.stores.keys import Key
from gateway.tiers import Tiers
from policies.service import Reply, Usage
from tests.kit.upstream import make_call

PROVIDERS = {
    name: Provider(preset="vllm", base_url="http://x/v1", prices={"m": {"input": price, "output": 2 * price}})
    for name, price in (("cheap", 1), ("dear", 5))
}
MODELS = {"m": Model(route=[["cheap/m"], ["dear/m"]])}


def limits(**written):
    return Limits.model_validate(written)


@pytest.fixture
def tiers():
    found = Tiers()
    found.declare({"free": Tier(limits=limits(requests="10/minute"))}, {"acme": Tenant(zone="Asia/Tokyo")})
    return found


@pytest.fixture
def claims(tiers):
    found = Claims(tiers, TokenEstimates(), lambda: 0.0)
    found.declare(MODELS, Tariffs(PROVIDERS))
    return found


def key(**facts):
    return Key(**{"id": "k1", "name": "k", "digest": "", "tenant": "acme", "tier": "free", **facts})


def names(allotment):
    return [bucket.key for bucket in allotment.buckets]


def test_all_buckets_of_a_key_lie_together_under_its_tenant(tiers, claims):
    tiers.store({}, {"acme": Tenant(limits=limits(tokens="9/day"), zone="Asia/Tokyo")})
    allotment = claims.allotment_of(key(limits=limits(concurrency=2)))
    assert names(allotment) == [
        "tidegate:{acme}:tier:free:requests:minute",
        "tidegate:{acme}:tenant:tokens:day",
        "tidegate:{acme}:key:k1:concurrency:now",
    ]
    assert {bucket.limit.zone for bucket in allotment.buckets[:2]} == {"Asia/Tokyo"}


def test_they_are_worked_out_once_and_anew_when_something_changes(tiers, claims):
    mine = key()
    first = claims.allotment_of(mine)
    assert claims.allotment_of(mine) is first
    tiers.store({"free": Tier(limits=limits(requests="20/minute"))}, {})
    second = claims.allotment_of(mine)
    assert second.buckets[0].limit.amount == 20
    assert names(second) == names(first)  # what was counted so far stays counted
    assert claims.allotment_of(key(limits=limits(concurrency=1))).slots


def test_without_limits_there_is_nothing_to_claim(claims):
    assert claims.allotment_of(key(tier="default")) is None
    assert claims(make_call()) is None


def test_names_may_have_any_character(claims):
    assert names(claims.allotment_of(key(tenant="{a}%"))) == [
        "tidegate:{%7Ba%7D%25}:tier:free:requests:minute"
    ]


def test_what_is_asked_for_is_reserved_at_the_dearest_price_and_settled_by_who_answered(claims):
    allotment = claims.allotment_of(key(limits=limits(spend="1/day", output_tokens="400/minute")))
    call = make_call(model="m", route="m", allotment=allotment)
    claim = claims(call)
    assert claim.estimate.output == 100  # nobody said: a quarter of the limit
    assert (claim.input_price, claim.output_price) == (5e-6, 10e-6)
    used = Usage(input=100, output=50)
    assert claim.spent(Reply("cheap", "m"), used) == pytest.approx(0.0002)
    assert claim.spent(Reply("dear", "m"), used) == pytest.approx(0.001)
    assert claim.spent(Reply("dear", "unpriced"), used) == 0
    asked = make_call(model="m", route="m", allotment=allotment, body={"messages": [], "max_tokens": 300})
    assert claims(asked).estimate.output == 300


def test_tokens_are_only_counted_where_a_limit_needs_them(claims):
    call = make_call(allotment=claims.allotment_of(key()))
    assert claims(call).estimate == Usage()
    assert call.estimate is None

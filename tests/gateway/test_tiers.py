import pytest

from gateway.settings import Tenant, Tier
from gateway.tiers import Tiers


def shares(tiers):
    return {name: tier.share for name, tier in tiers.tiers.items()}


def test_there_is_always_a_default_tier():
    tiers = Tiers()
    assert shares(tiers) == {"default": 1.0}
    assert tiers.tier("gold") == tiers.tier("default")
    assert tiers.tier("gold").limits.of() == ()


def test_a_stored_tier_replaces_the_declared_one_until_it_is_deleted():
    tiers = Tiers()
    tiers.declare({"free": Tier(weight=2)}, {"acme": Tenant(tier="free")})
    tiers.store({"free": Tier(weight=3)}, {"acme": Tenant(zone="Asia/Tokyo")})
    assert (tiers.tier("free").weight, tiers.tenant("acme").zone) == (3, "Asia/Tokyo")
    before = tiers.revision
    tiers.store({}, {})
    assert (tiers.tier("free").weight, tiers.tenant("acme").tier) == (2, "free")
    assert tiers.revision > before


def test_tiers_without_a_share_divide_what_the_others_leave():
    tiers = Tiers()
    tiers.declare({"free": Tier(share="10%"), "pro": Tier(share="60%")}, {})
    assert shares(tiers) == {"default": pytest.approx(0.3), "free": 0.1, "pro": 0.6}
    tiers.declare({"gold": Tier(share="100%")}, {})
    assert shares(tiers) == {"default": 0, "gold": 1}
    tiers.declare({"a": Tier(), "default": Tier(weight=9)}, {})
    assert shares(tiers) == {"a": 0.5, "default": 0.5}
    assert tiers.tier("unknown").weight == 9

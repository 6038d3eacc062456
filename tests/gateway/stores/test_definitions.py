import asyncio

import pytest

from gateway.settings import Tenant, Tier
from gateway.stores.audit import Audit, Subject, Wanted
from gateway.stores.definitions import Definitions, written

NOW = 1000.0
TIER = Tier.model_validate(
    {
        "limits": {"requests": ["10/minute", "50/day"], "tokens": {"amount": "9/minute", "strict": True}},
        "weight": 2,
        "share": "12.5%",
        "queue": {"max_wait": "250ms"},
        "zone": "Europe/Berlin",
    }
)


@pytest.fixture
def tiers(engines):
    return Definitions(engines[0], lambda: NOW, Tier.model_validate, Subject.TIER)


@pytest.fixture
def other(engines):
    return Definitions(engines[1], lambda: NOW, Tier.model_validate, Subject.TIER)


async def test_a_definition_comes_back_as_it_was_stored(tiers, other):
    stored = await tiers.change("pro", lambda _: TIER)
    assert (stored.definition, stored.changed) == (TIER, NOW)
    assert await other.get("pro") == stored
    assert await other.all() == {"pro": stored}
    assert Tier.model_validate(written(TIER)) == TIER
    assert written(Tier()) == {}


async def test_no_two_states_share_a_version(tiers, other):
    versions = []
    for store in (tiers, other, tiers):
        versions.append((await store.change("pro", lambda _: TIER)).version)
        assert await store.change("pro", lambda _: None) is None
    assert versions == sorted(set(versions))
    assert await tiers.get("pro") is None


async def test_writers_of_several_processes_see_each_others_changes(tiers, other):
    await tiers.change("pro", lambda _: Tier(weight=1))

    def heavier(stored):
        return Tier(weight=stored.definition.weight + 1)

    await asyncio.gather(*(store.change("pro", heavier) for store in (tiers, other) for _ in range(5)))
    assert (await tiers.get("pro")).definition.weight == 11


async def test_a_refused_change_leaves_no_trace(tiers, engines):
    def refuse(_):
        raise PermissionError

    before = await tiers.change("pro", lambda _: TIER)
    with pytest.raises(PermissionError):
        await tiers.change("pro", refuse)
    assert await tiers.get("pro") == before
    assert len(await Audit(engines[0], lambda: NOW).read(Wanted(subject=Subject.TIER), 10)) == 1


async def test_tiers_and_tenants_of_one_name_are_different_things(tiers, engines):
    tenants = Definitions(engines[0], lambda: NOW, Tenant.model_validate, Subject.TENANT)
    await tiers.change("acme", lambda _: TIER)
    await tenants.change("acme", lambda _: Tenant(tier="pro"))
    assert (await tenants.get("acme")).definition == Tenant(tier="pro")
    assert (await tiers.get("acme")).definition == TIER

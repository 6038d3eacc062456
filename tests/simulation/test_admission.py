"""What algorithms promise of admission: fair shares, weights, tiers in a spike, honest Retry-After."""

import asyncio
from random import Random

import pytest

from policies.fairqueue import AdmissionOptions
from policies.tiers import TierOptions
from tests.kit.virtual_time import run_virtual
from tests.simulation.crowds import CALLS_PER_SEAT, Place, crowd, make_call, quantile, tell

TIERS = {
    "pro": TierOptions(share=60, weight=4, max_wait=30),
    "plus": TierOptions(share=30, weight=2, max_wait=30),
    "free": TierOptions(share=10, weight=1, max_wait=20),
}


def flooded(options, weights=None, seconds=600):
    """A flooding tenant and a light one, both asking for more than all of 16 seats."""

    async def run():
        place, visits = Place(16, options, weights or {}), []
        async with asyncio.TaskGroup() as group:
            for tenant, rate in (("flood", 20), ("light", 3)):
                group.create_task(crowd(place, Random(rate), rate, seconds, tenants=[tenant], visits=visits))
        return visits

    return [visit for visit in run_virtual(run()) if 60 <= visit.ended < seconds]


def two_tenants(options, weights=None):
    """The service that each got."""
    visits = flooded(options, weights)
    return tuple(
        sum(visit.served for visit in visits if visit.call.tenant == tenant) for tenant in ("flood", "light")
    )


def test_a_flood_takes_no_more_than_its_share():
    flood, light = two_tenants(None)
    fair_flood, fair_light = two_tenants(AdmissionOptions())
    tell(f"service flood / light: first come {flood / light:.2f}, admission {fair_flood / fair_light:.3f}")
    tell(f"throughput against first come: {(fair_flood + fair_light) / (flood + light):.3f}")
    assert flood / light > 5
    assert 1 / 1.1 <= fair_flood / fair_light <= 1.1
    assert fair_flood + fair_light >= 0.97 * (flood + light)


def test_weights_are_kept():
    flood, light = two_tenants(AdmissionOptions(), {"flood": 1, "light": 3})
    tell(f"service light / flood at weights 3 : 1 = {light / flood:.3f}")
    assert light / flood == pytest.approx(3, rel=0.1)


def spike(options, returns=0):
    """40 seats of which 86% are asked for, and the bottom tier's demand 12-fold from 60 s to 180 s."""
    whole = 40 * CALLS_PER_SEAT

    async def run():
        place, visits = Place(40, options), []
        async with asyncio.TaskGroup() as group:
            for tier, share in (("pro", 0.50), ("plus", 0.25), ("free", 0.11)):
                tenants = [f"{tier}{number}" for number in range(10)]
                group.create_task(
                    crowd(place, Random(tier), whole * share, 300, tenants=tenants, tier=tier, visits=visits)
                )
            tenants = [f"free{number}" for number in range(40)]
            group.create_task(
                crowd(
                    place,
                    Random(12),
                    whole * 0.11 * 11,
                    120,
                    tenants=tenants,
                    tier="free",
                    returns=returns,
                    start=60,
                    visits=visits,
                )
            )
        return place, visits

    return run_virtual(run())


@pytest.mark.parametrize("returns", [0, 3])
def test_the_top_tiers_do_not_feel_a_spike_of_the_bottom_one(returns):
    answered = {}
    for name, options in (("first come", None), ("admission", AdmissionOptions(TIERS))):
        _, visits = spike(options, returns)
        for tier in TIERS:
            during = [v for v in visits if v.call.tier == tier and 60 <= v.started < 180]
            share = sum(v.outcome == "ok" for v in during) / len(during)
            answered[name, tier] = share
            waits = [v.waited for v in during if v.outcome == "ok"]
            tell(
                f"{name}, {tier}: {share:.4f} of {len(during)} answered, "
                f"wait p50 {quantile(waits, 0.5):.2f} s, p99 {quantile(waits, 0.99):.2f} s"
            )
    assert answered["admission", "pro"] >= 0.994
    assert answered["admission", "plus"] >= 0.994


def returned(visits):
    """Of those sent away once: how many, and how many were let in when they first came back."""
    seen = {}
    for visit in visits:
        seen.setdefault(visit.call.id, []).append(visit)
    back = [history for history in seen.values() if len(history) > 1]
    return len(back), sum(history[1].outcome == "ok" for history in back), back


def test_who_comes_back_when_told_is_let_in():
    place, visits = spike(AdmissionOptions(TIERS), returns=5)
    count, let_in, back = returned(visits)
    waits = [history[1].waited for history in back if history[1].outcome == "ok"]
    told = [history[0].retry_after for history in back]
    tell(
        f"Retry-After: {let_in} of {count} let in at their first return ({let_in / count:.3f}); "
        f"told p50 {quantile(told, 0.5):.0f} s, longest {max(told):.0f} s; "
        f"then waited p50 {quantile(waits, 0.5):.2f} s, p99 {quantile(waits, 0.99):.2f} s"
    )
    assert count > 300
    assert let_in / count >= 0.9
    # The last to be told was told no more than what it took to serve everybody.
    assert place.seating.queue.waiting == 0


@pytest.mark.parametrize("slowness", [0.05, 0.2, 1, 4])
def test_a_start_under_overload_sends_away_no_more_than_it_has_to(slowness):
    """Four times what 16 seats serve, from the first moment on, when nobody knows how long calls last."""
    rate = 4 * 16 * CALLS_PER_SEAT / slowness

    async def run():
        place = Place(16, AdmissionOptions({"default": TierOptions(max_wait=5)}), slowness=slowness)
        visits, tenants = [], [f"t{number}" for number in range(10)]
        await crowd(place, Random(1), rate, 10, tenants=tenants, returns=5, visits=visits)
        return visits

    visits = run_virtual(run())
    count, let_in, _ = returned(visits)
    early = [visit.retry_after for visit in visits if visit.started < 3 and visit.outcome != "ok"]
    tell(
        f"calls of {5.75 * slowness:.2f} s: {len(early)} of {3 * rate:.0f} sent away in the first 3 s, "
        f"for p50 {quantile(early, 0.5):.1f} s; {let_in / count:.3f} of {count} let in at their first return"
    )
    assert let_in / count >= 0.9
    # Of what comes in 3 s, a quarter is served; as much as is served in the next 5 s may wait.
    assert len(early) <= 1.3 * rate


def test_no_seat_leaks_when_clients_leave_at_random():
    async def run():
        random = Random(11)
        place = Place(8, AdmissionOptions({"a": TierOptions(), "b": TierOptions(max_wait=2)}))

        async def client(number):
            for visit in range(20):
                call = make_call(random, number * 100 + visit, f"t{number % 7}", random.choice("abc"))
                task = asyncio.create_task(place.visit(call))
                await asyncio.wait({task}, timeout=random.expovariate(0.3))
                task.cancel()
                await asyncio.wait({task})
                assert place.active <= 8

        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(client(number))
        queue = place.seating.queue
        assert (queue.waiting, place.permits.limit.inflight, place.active) == (0, 0, 0)
        assert [tier.running for tier in queue.tiers.values()] == [0, 0, 0]
        assert (place.seating._entering, place.seating._turns, place.seating._alarm) == (0, {}, None)
        assert not place.permits._listeners
        visits = await asyncio.gather(*(place.visit(make_call(random, n, "t", "a")) for n in range(8)))
        assert [visit.waited for visit in visits] == [0] * 8
        tell(f"4,000 calls that are left at random: at most {place.most} at once; 8 of 8 free at the end")
        assert place.most == 8

    run_virtual(run())

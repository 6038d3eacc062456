"""How soon a dead upstream is found, how long it is out, how it comes back, and what clients notice."""
# ruff: noqa: T201 - prints its figures

import asyncio
import math
import random
from collections import Counter

import pytest

from policies.balance import BalanceOptions, Group
from policies.breaker import Breaker
from policies.errors import GatewayError, StreamInterrupted, UpstreamTimeout, UpstreamUnavailable
from policies.facts import HealthChanged, ProbeFinished, UpstreamEjected
from policies.health import Health, HealthOptions, HealthState
from policies.member import Member
from tests.kit.upstream import RecordingMeter, ScriptedUpstream, Wait, make_call, read_text
from tests.kit.virtual_time import LoopClock, run_virtual
from tests.simulation.upstream_pool import Pool, SlottedUpstream, now

RESET = UpstreamUnavailable("reset")
DEATHS = {
    "reset": [RESET],
    "silence": [Wait(5), UpstreamTimeout("silent")],
    "broken stream": ["a", StreamInterrupted("cut")],
    "blank 200": [Wait(0.3), UpstreamUnavailable("blank")],
}


def ejections_of(part, *, seconds=150.0):
    """Failures until the first ejection, and all ejections, with one call a tenth of a second."""
    meter, clock = RecordingMeter(), LoopClock()
    health = Health("up", options=HealthOptions(), rng=random.Random(7), meter=meter)
    upstream = ScriptedUpstream([["fine"]] * 20 + [part])
    service = Breaker(upstream, health=health, clock=clock)

    async def main():
        failures = None
        while now() < seconds:
            try:
                await read_text(service, make_call())
            except GatewayError:
                if failures is None and health.state(now()) is HealthState.OPEN:
                    failures = len(upstream.opened) - 20
            await asyncio.sleep(0.1)
        return failures

    return run_virtual(main()), meter.of(UpstreamEjected)


@pytest.mark.parametrize("death", DEATHS)
def test_a_death_is_found_within_five_failures_and_each_ejection_is_longer(death):
    failures, ejections = ejections_of(DEATHS[death])
    seconds = [fact.seconds for fact in ejections]
    print(f"{death:14} found after {failures} failures; out for", *(f"{s:.1f} s" for s in seconds[:3]))
    assert failures <= 5
    for k, out in enumerate(seconds[:3], start=1):
        assert 10 * k <= out <= 12 * k


def shares_of_return(strategy, *, rate=100, step=10, fill=None):
    """The returning one's share of picks in each ``step`` seconds of its ramp, and what it ought to be."""
    rng, meter = random.Random(3), RecordingMeter()
    members = []
    for i in range(3):
        health = Health(f"up{i}", options=HealthOptions(), rng=rng, meter=meter)
        members.append(Member(f"up{i}", None, health=health))
        members[i].latency.observe(0, 0.6)
        members[i].inflight = fill or 0
    group = Group(members, options=BalanceOptions(strategy=strategy), rng=rng, meter=meter)
    members[0].health.drain(0)
    members[0].health.resume(0)
    rows = []
    under_way = []
    for start in range(0, 60, step):
        picked, ideal = 0, 0.0
        for i in range(step * rate):
            t = start + i / rate
            while under_way and under_way[0][0] <= t:
                under_way.pop(0)[1].inflight -= 1
            member = group.pick(make_call(), t)
            member.latency.observe(t, 0.6)
            member.inflight += 1
            under_way.append((t + 3.0, member))
            picked += member is members[0]
            factor = max(0.1, t / 60)
            ideal += factor / (factor + 2)
        rows.append((start + step / 2, picked / (step * rate), ideal / (step * rate)))
    return rows


@pytest.mark.parametrize(("strategy", "bound"), [("weighted", 0.05), ("least-busy", 0.1), ("latency", 0.1)])
def test_a_return_follows_the_ramp(strategy, bound):
    rows = shares_of_return(strategy)
    errors = [abs(share - ideal) / ideal for _, share, ideal in rows]
    print(f"ramp, {strategy}:", *(f"{t:.0f} s {share:.1%} of {ideal:.1%};" for t, share, ideal in rows))
    print(f"  largest error {max(errors):.1%}")
    assert max(errors) <= bound


DEAD_FROM, DEAD_UNTIL, OFFERED = 60.0, 180.0, 12.0


def one_of_three_dead(kind, *, until=DEAD_UNTIL, rate=OFFERED, seed=1, **facts):
    """A pool, one of whose three upstreams is dead from second 60 on, and what its clients saw."""
    dead = "silent" if kind == "silence" else RESET

    async def main():
        rng = random.Random(seed)
        upstreams = [SlottedUpstream(f"up{i}", rng, slots=40) for i in range(3)]
        upstreams[0].fault = lambda t: dead if DEAD_FROM <= t < until else None
        pool = Pool(upstreams, seed=seed, **facts)
        return pool, await pool.offer(rate, until + 120)

    return run_virtual(main())


def back_after(pool, until=DEAD_UNTIL):
    """Seconds from the recovery to the return into rotation."""
    return next((at - until for at, fact in timed(pool) if fact.after == "closed" and at > until), math.inf)


def timed(pool):
    return [(at, fact) for at, fact in pool.meter.timeline if isinstance(fact, HealthChanged)]


@pytest.mark.parametrize("kind", ["reset", "silence"])
@pytest.mark.parametrize("strategy", ["latency", "weighted"])
def test_one_of_three_dead_is_hardly_noticed(kind, strategy):
    pool, outcomes = one_of_three_dead(kind, strategy=strategy, probes="models")
    answered = sum(math.isfinite(outcome.first_token) for outcome in outcomes)
    dead = pool.upstreams[0]
    wasted = [t for t in dead.opened if DEAD_FROM <= t < DEAD_UNTIL]
    late = [t for t in wasted if t > DEAD_FROM + 15]
    back = back_after(pool)
    first = Counter(int(t - DEAD_UNTIL) // 10 for t in dead.opened if t >= DEAD_UNTIL)
    free = len(pool.meter.of(ProbeFinished))
    print(
        f"{kind:8} {strategy:9} answered {answered}/{len(outcomes)} = {answered / len(outcomes):.4%}; "
        f"calls to the dead one {len(wasted)}, of them trials {len(late)}; free probes {free}; "
        f"back after {back:.1f} s; calls in each 10 s from recovery {[first[i] for i in range(12)]}"
    )
    assert answered / len(outcomes) >= 0.999
    assert len(late) <= 20
    assert back <= 30


def test_free_probes_shorten_the_way_back_after_a_long_outage():
    until = 660.0
    for probes in ("models", "off"):
        backs, trials, ejections = [], [], []
        for seed in (1, 2, 3):
            pool, outcomes = one_of_three_dead("reset", probes=probes, until=until, rate=2.0, seed=seed)
            answered = sum(math.isfinite(outcome.first_token) for outcome in outcomes)
            assert answered / len(outcomes) >= 0.999
            backs.append(back_after(pool, until))
            trials.append(sum(DEAD_FROM + 15 < t < until for t in pool.upstreams[0].opened))
            ejections.append(max(fact.seconds for fact in pool.meter.of(UpstreamEjected)))
        print(
            f"dead for 10 min, probes {probes:6}: back after {', '.join(f'{back:.0f} s' for back in backs)}; "
            f"trials by clients {trials}; longest ejection {max(ejections):.0f} s"
        )
        assert probes == "off" or max(backs) <= 30


def test_everybody_returns_at_once_and_one_trial_goes():
    meter, clock = RecordingMeter(), LoopClock()
    health = Health("up", options=HealthOptions(), rng=random.Random(7), meter=meter)
    upstream = ScriptedUpstream([[RESET]] * 5 + [[Wait(1), "back"]])
    service = Breaker(upstream, health=health, clock=clock)

    async def main():
        for _ in range(5):
            with pytest.raises(UpstreamUnavailable):
                await read_text(service, make_call())
        await asyncio.sleep(12)
        crowd = (read_text(service, make_call()) for _ in range(1000))
        results = await asyncio.gather(*crowd, return_exceptions=True)
        return sum(result == "back" for result in results), upstream.most_active

    through, most = run_virtual(main())
    print(f"1000 calls wait for the end of an ejection: {through} passed, {most} at once")
    assert (through, most) == (1, 1)

import asyncio
import contextlib
import random

import pytest

from policies.errors import UpstreamKeyRejected, UpstreamUnavailable
from policies.facts import ProbeFinished
from policies.health import Health, HealthOptions, HealthState
from policies.probe import ProbeOptions, Prober, ProbeSchedule
from tests.kit.upstream import RecordingMeter
from tests.kit.virtual_time import LoopClock, run_virtual


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"kind": "token"}, "costs money"),
        ({"interval": 0}, "interval"),
        ({"timeout": 0}, "timeout"),
        ({"jitter": 1}, "jitter"),
        ({"paid_per_hour": -1}, "paid_per_hour"),
    ],
)
def test_options_that_make_no_sense_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        ProbeOptions(**wrong)


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("off", set()),
        ("models", {HealthState.OPEN}),
        ("token", {HealthState.OPEN, HealthState.HALF_OPEN}),
    ],
)
def test_only_what_is_out_is_probed(kind, wanted):
    schedule = ProbeSchedule(ProbeOptions(kind=kind, paid_per_hour=1), random.Random(1))
    assert {state for state in HealthState if schedule.wanted(state)} == wanted


def test_the_budget_is_never_passed_in_any_hour():
    schedule = ProbeSchedule(ProbeOptions(kind="token", paid_per_hour=6), random.Random(1))
    paid = [now for now in range(0, 6 * 3600, 10) if schedule.spend(now)]
    assert len(paid) == 36
    assert all(later - now >= 3600 for now, later in zip(paid, paid[6:], strict=False))


def probing(check, **options):
    meter = RecordingMeter()
    clock = LoopClock()
    health = Health("up", model="m", options=HealthOptions(), rng=random.Random(1), meter=meter)
    schedule = ProbeSchedule(ProbeOptions(**options), random.Random(2))
    return Prober(health, check, schedule=schedule, clock=clock, meter=meter), health, meter


def eject(health, now=0.0):
    for _ in range(5):
        health.settle(health.admit(now), now, UpstreamUnavailable("x"), None)


async def run_for(prober, seconds):
    task = asyncio.create_task(prober.run())
    await asyncio.sleep(seconds)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def test_nothing_is_asked_of_a_healthy_upstream():
    async def check():
        raise AssertionError

    prober, _, meter = probing(check)
    run_virtual(run_for(prober, 600))
    assert meter.facts == []


def test_a_recovery_is_found_before_the_ejection_ends():
    async def check():
        if asyncio.get_running_loop().time() < 100:
            raise UpstreamUnavailable("still")

    async def main():
        prober, health, meter = probing(check)
        for now in (0, 12, 36):  # the third ejection lasts until 66 at the earliest
            health.state(now)
            eject(health, now) if now == 0 else health.settle(
                health.admit(now), now, UpstreamUnavailable("x"), None
            )
        health._until = 300.0
        await run_for(prober, 113)
        assert health.state(113) is HealthState.HALF_OPEN
        outcomes = [fact.outcome for fact in meter.of(ProbeFinished)]
        assert outcomes[-1] == "ok"
        assert set(outcomes[:-1]) == {"UpstreamUnavailable"}
        assert 8 <= len(outcomes) <= 13

    run_virtual(main())


def test_silence_and_a_refused_key_are_found():
    async def silent():
        await asyncio.sleep(60)

    async def refused():
        raise UpstreamKeyRejected("revoked")

    async def main():
        prober, health, meter = probing(silent)
        eject(health)
        await prober.probe()
        assert [(f.outcome, f.duration) for f in meter.of(ProbeFinished)] == [("UpstreamTimeout", 5)]
        assert health.state(6) is HealthState.OPEN
        prober, health, _ = probing(refused, kind="token", paid_per_hour=1)
        await prober.probe()
        assert health.state(6) is HealthState.DISABLED

    run_virtual(main())


def test_paid_probes_bring_it_back_alone():
    async def check():
        pass

    async def main():
        prober, health, meter = probing(check, kind="token", paid_per_hour=4)
        eject(health)
        health._until = 9999.0
        await run_for(prober, 30)
        assert health.state(30) is HealthState.CLOSED
        assert len(meter.of(ProbeFinished)) == 2

    run_virtual(main())


def test_a_defect_in_the_check_is_not_hidden():
    async def check():
        raise KeyError("x")

    prober, _, _ = probing(check)
    with pytest.raises(KeyError):
        run_virtual(prober.probe())

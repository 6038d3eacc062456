import asyncio
import random

import pytest

from policies.breaker import Breaker
from policies.errors import NoHealthyUpstream, StreamInterrupted, UpstreamBusy, UpstreamUnavailable
from policies.health import Health, HealthOptions, HealthState
from tests.kit.upstream import RecordingMeter, ScriptedUpstream, Wait, make_call, read_text
from tests.kit.virtual_time import LoopClock, run_virtual

BROKEN = UpstreamUnavailable("reset")


def guarded(script, **options):
    upstream = ScriptedUpstream(script)
    health = Health("up", options=HealthOptions(**options), rng=random.Random(1), meter=RecordingMeter())
    return Breaker(upstream, health=health, clock=LoopClock()), upstream, health


async def fail(service, times=5):
    for _ in range(times):
        with pytest.raises(UpstreamUnavailable):
            await read_text(service, make_call())


def test_it_is_transparent_on_success():
    service, _, health = guarded([["a", Wait(1), "b"]])
    assert run_virtual(read_text(service, make_call())) == "ab"
    assert health.report(1).error_ratio == 0


def test_a_dead_upstream_is_left_alone_until_its_time():
    service, upstream, health = guarded([[BROKEN]] * 5 + [["back"]])

    async def main():
        await fail(service)
        with pytest.raises(NoHealthyUpstream) as refused:
            await read_text(service, make_call())
        assert len(upstream.opened) == 5
        assert 10 <= refused.value.retry_after <= 12
        assert "open" in refused.value.message
        await asyncio.sleep(refused.value.retry_after)
        assert await read_text(service, make_call()) == "back"
        assert await read_text(service, make_call()) == "back"
        assert health.state(13) is HealthState.CLOSED

    run_virtual(main())


def test_broken_streams_count():
    service, upstream, health = guarded([["a", StreamInterrupted("cut")]])

    async def main():
        for _ in range(5):
            with pytest.raises(StreamInterrupted):
                await read_text(service, make_call())
        assert health.state(0) is HealthState.OPEN
        assert upstream.active == 0

    run_virtual(main())
    assert len(upstream.opened) == 5  # never reopened after the yield


def test_busy_and_abandoned_calls_dont_count():
    service, _, health = guarded([[UpstreamBusy("busy")]] * 10 + [["a", Wait(9), "b"]])

    async def main():
        for _ in range(10):
            with pytest.raises(UpstreamBusy):
                await read_text(service, make_call())
        for _ in range(10):
            async with service(make_call()):
                pass
        assert health.report(0).error_ratio == 0
        assert health.state(0) is HealthState.CLOSED

    run_virtual(main())


@pytest.mark.parametrize("when", [1, 7])
def test_a_cancelled_trial_gives_its_place_back(when):
    service, upstream, health = guarded([[BROKEN]] * 5 + [[Wait(5), "a", Wait(5), "b"]])

    async def main():
        await fail(service)
        await asyncio.sleep(12)
        task = asyncio.create_task(read_text(service, make_call()))
        await asyncio.sleep(when)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert upstream.active == 0
        assert health.available(12 + when)

    run_virtual(main())


def test_a_crowd_shares_one_trial():
    service, upstream, _ = guarded([[BROKEN]] * 5 + [[Wait(2), BROKEN]])

    async def main():
        await fail(service)
        await asyncio.sleep(12)
        results = await asyncio.gather(
            *(read_text(service, make_call()) for _ in range(100)), return_exceptions=True
        )
        assert [type(result) for result in results].count(NoHealthyUpstream) == 99

    run_virtual(main())
    assert len(upstream.opened) == 6

import asyncio

import pytest

from policies.errors import UpstreamUnavailable
from policies.facts import AttemptFinished, CallFinished
from policies.observe import ObserveAttempts, ObserveCalls
from tests.kit.upstream import RecordingMeter, ScriptedUpstream, Wait, make_call, read_text
from tests.kit.virtual_time import LoopClock, run_virtual


def observed(upstream):
    meter = RecordingMeter()
    clock = LoopClock()
    inner = ObserveAttempts(upstream, upstream="up", model="big", clock=clock, meter=meter)
    return ObserveCalls(inner, clock=clock, meter=meter), meter


def test_a_good_stream_is_told_with_its_times():
    service, meter = observed(ScriptedUpstream([[Wait(2), "a", Wait(3), "b"]]))
    call = make_call()
    assert run_virtual(read_text(service, call)) == "ab"
    (finished,) = meter.of(CallFinished)
    assert (finished.outcome, finished.first_event, finished.duration) == ("ok", 2, 5)
    assert finished.usage.output == 2
    (attempt,) = call.attempts
    assert (attempt.upstream, attempt.outcome, attempt.first_event) == ("up", "ok", 2)


def test_an_error_is_told_by_its_name():
    service, meter = observed(ScriptedUpstream([[UpstreamUnavailable("busy")]]))
    with pytest.raises(UpstreamUnavailable):
        run_virtual(read_text(service, make_call()))
    assert meter.of(CallFinished)[0].outcome == "UpstreamUnavailable"
    assert meter.of(AttemptFinished)[0].attempt.first_event is None


def test_leaving_early_is_a_cancellation():
    service, meter = observed(ScriptedUpstream([["a", Wait(9), "b"]]))

    async def leave():
        async with service(make_call()):
            await asyncio.sleep(1)

    run_virtual(leave())
    assert meter.of(CallFinished)[0].outcome == "cancelled"
    assert meter.of(CallFinished)[0].duration == 1


def test_cancelling_the_task_is_a_cancellation():
    upstream = ScriptedUpstream([[Wait(60), "a"]])
    service, meter = observed(upstream)

    async def cancel():
        task = asyncio.create_task(read_text(service, make_call()))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(cancel())
    assert meter.of(AttemptFinished)[0].attempt.outcome == "cancelled"
    assert upstream.active == 0

import asyncio

import pytest

from policies.errors import UpstreamUnavailable
from policies.facts import AttemptFinished, CallFinished
from policies.observe import ObserveAttempts, ObserveCalls
from policies.service import CANCELLED, LOST, OK, PENDING, Attempt
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


def attempt(outcome, began, first_event, duration=0.0):
    return Attempt("up", "m", outcome, duration, first_event, began)


@pytest.mark.parametrize(
    ("attempts", "overhead"),
    [
        ([], 3.5),
        ([attempt(OK, 101, 2.5, 9)], 1),
        ([attempt("UpstreamBusy", 100.5, None, 1), attempt(OK, 102, 1.5, 9)], 1),
        # A hedge beside the first attempt, which lost, or which is told below only later that it did.
        ([attempt(LOST, 100.5, None, 2.5), attempt(PENDING, 102, 1.5)], 0.5),
        ([attempt(LOST, 100.5, None), attempt(PENDING, 102, 1.5)], 0.5),
        ([attempt(PENDING, 100.5, 3.0), attempt(LOST, 102, None)], 0.5),
        # The stream broke afterwards, and was carried on.
        ([attempt("StreamInterrupted", 101, 2.5, 4), attempt(OK, 105.5, 2, 9)], 1),
        # One that was under way before: another call's, whose answer this one took over.
        ([attempt(CANCELLED, 90, None, 11), attempt(OK, 99, 3.5)], 1),
    ],
)
def test_overhead_is_what_was_not_waited_for_upstreams(attempts, overhead):
    call = make_call(arrived=100, attempts=attempts)
    assert call.overhead(3.5) == pytest.approx(overhead)


def test_overhead_is_not_what_was_waited_for_a_turn_or_another_call():
    call = make_call(arrived=100, queued=1, coalesced=2)
    assert call.overhead(3.5) == 0.5


def test_attempts_tell_when_they_began():
    service, _ = observed(ScriptedUpstream([[Wait(2), "a"]]))
    call = make_call()

    async def story():
        await asyncio.sleep(7)
        await read_text(service, call)

    run_virtual(story())
    assert (call.attempts[0].began, call.attempts[0].waited_until) == (7, 9)

import asyncio
from contextlib import suppress
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.errors import AttemptHeldBack, UpstreamBusy, UpstreamThrottled, UpstreamUnavailable
from policies.facts import AttemptRefused
from policies.throttle import AcceptRatio, ClientThrottle, ThrottleOptions
from tests.kit.upstream import RecordingMeter, ScriptedUpstream, Wait, make_call, read_text
from tests.kit.virtual_time import LoopClock, run_virtual


def new_ratio(**options):
    return AcceptRatio(ThrottleOptions(**options), random=Random(1))


@pytest.mark.parametrize(
    ("accepted", "refused", "probability"),
    [(0, 0, 0), (10, 0, 0), (10, 10, 0), (0, 9, 0), (3, 7, 4 / 11), (10, 30, 20 / 41), (0, 99, 0.8)],
)
def test_the_books_formula_with_a_cap(accepted, refused, probability):
    ratio = new_ratio()
    for _ in range(accepted):
        ratio.record(1, 1, accepted=True)
    for _ in range(refused):
        ratio.record(1, 1, accepted=False)
    assert ratio.refusal(1) == pytest.approx(probability)


def test_two_minutes_are_remembered():
    ratio = new_ratio()
    for _ in range(50):
        ratio.record(5, 5, accepted=False)
    assert ratio.refusal(119) == 0.8
    assert ratio.refusal(120) == 0
    assert ratio.requests == 0


@given(st.lists(st.tuples(st.floats(0, 60), st.floats(0, 300), st.booleans()), max_size=200))
def test_the_buckets_hold_what_was_sent_in_the_window(steps):
    ratio = new_ratio()
    now, sent = 0.0, []
    for pause, took, accepted in steps:
        now += pause
        sent_at = max(0.0, now - took)
        ratio.record(now, sent_at, accepted)
        sent.append((sent_at, accepted))
        recent = [ok for at, ok in sent if at // 10 > now // 10 - 12]
        assert ratio.requests == len(recent)
        assert ratio.accepts == sum(recent)
        assert 0 <= ratio.refusal(now) <= 0.8


def layered(upstream):
    meter, ratio = RecordingMeter(), new_ratio()
    layer = ClientThrottle(upstream, upstream="up", ratio=ratio, clock=LoopClock(), meter=meter)
    return layer, ratio, meter


async def outcomes(layer, count):
    seen = []
    for _ in range(count):
        try:
            await read_text(layer, make_call())
            seen.append("ok")
        except UpstreamThrottled as error:
            seen.append("sent" if error.status else "kept")
        await asyncio.sleep(0.1)
    return seen


def test_most_attempts_on_an_upstream_that_refuses_all_are_kept():
    upstream = ScriptedUpstream([[UpstreamBusy("busy", status=503)]])
    layer, _, meter = layered(upstream)
    seen = run_virtual(outcomes(layer, 500))
    assert 0.15 < seen.count("sent") / 500 < 0.3
    assert len(upstream.opened) == seen.count("sent")
    assert len(meter.of(AttemptRefused)) == seen.count("kept")


def test_attempts_without_an_outcome_are_no_refusals():
    layer, ratio, _ = layered(ScriptedUpstream([[Wait(60), "a"]]))

    async def main():
        await asyncio.gather(*[read_text(layer, make_call()) for _ in range(40)])

    run_virtual(main())
    assert (ratio.requests, ratio.accepts) == (40, 40)


@pytest.mark.parametrize(
    ("part", "counted"),
    [
        (["a"], (1, 1)),
        ([UpstreamBusy("busy", status=503)], (1, 0)),
        ([AttemptHeldBack("held back by another gate")], (0, 0)),
        ([UpstreamUnavailable("down")], (0, 0)),
        (["a", UpstreamUnavailable("cut")], (1, 1)),
    ],
)
def test_only_what_the_upstream_refuses_counts_as_refused(part, counted):
    layer, ratio, _ = layered(ScriptedUpstream([part]))
    with suppress(UpstreamThrottled, UpstreamUnavailable):
        run_virtual(read_text(layer, make_call()))
    assert (ratio.requests, ratio.accepts) == counted


def test_a_cancellation_is_passed_on():
    upstream = ScriptedUpstream([[Wait(60), "a"]])
    layer, ratio, _ = layered(upstream)

    async def main():
        task = asyncio.create_task(read_text(layer, make_call()))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(main())
    assert upstream.active == ratio.requests == 0


@pytest.mark.parametrize("options", [{"ratio": 0.5}, {"window": 0}, {"most": 1}, {"enough": 0}])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match=r"throttle\."):
        ThrottleOptions(**options)

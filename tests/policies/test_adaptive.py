import asyncio
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.adaptive import AdaptiveConcurrency
from policies.concurrency import AdaptiveOptions, ConcurrencyLimit
from policies.errors import UpstreamBusy, UpstreamQuotaExhausted, UpstreamThrottled, UpstreamUnavailable
from policies.facts import AttemptRefused, LimitChanged
from policies.permits import Permits
from policies.service import Headroom
from tests.kit.upstream import RecordingMeter, ScriptedUpstream, Wait, make_call, read_text
from tests.kit.virtual_time import LoopClock, run_virtual

BUSY = UpstreamBusy("busy", status=503)


def new_limit(ceiling=None, **options):
    return ConcurrencyLimit(AdaptiveOptions(**options), random=Random(1), ceiling=ceiling)


def fill(limit, now):
    while limit.available(now):
        limit.sent(now)
    return limit.inflight


def throttle(limit, now, sent_at, **error):
    """One attempt is refused and over."""
    limit.throttled(now, sent_at, UpstreamBusy("busy", status=503, **error))
    limit.ended(now, sent_at, answered=False, tokens=0)


def test_slow_start_adds_one_for_each_first_token_under_load():
    limit = new_limit()
    assert fill(limit, 0) == 8
    for _ in range(8):
        limit.answered(1, 0, 0.5, None)
    assert limit.limit == 11  # until a fifth of it is idle
    assert limit.cause == "slow start"


def test_an_idle_limit_does_not_grow():
    limit = new_limit()
    limit.sent(0)
    for _ in range(50):
        limit.answered(1, 0, 0.5, None)
    assert limit.limit == 8


def test_a_throttle_lowers_the_limit_below_what_was_served():
    limit = new_limit(initial=40)
    fill(limit, 0)
    throttle(limit, 1, 0)
    assert limit.limit == round(0.85 * 39)
    assert limit.cause == "throttled"


def test_a_burst_of_throttles_counts_once():
    limit = new_limit(initial=40)
    fill(limit, 0)
    for _ in range(10):
        throttle(limit, 1, 0)
    throttle(limit, 9, 0)  # late, but sent before the first was heard of
    assert limit.limit == round(0.85 * 39)


def test_a_throttle_with_little_in_use_starts_the_search_anew():
    limit = new_limit(initial=40)
    limit.sent(0)
    limit.sent(0)
    throttle(limit, 1, 0)
    assert limit.limit == 1
    limit.answered(2, 0, 0.5, None)
    assert (limit.limit, limit.cause) == (2, "slow start")


def test_growth_is_cubic_and_pauses_at_the_level_refused():
    limit = new_limit(initial=101, probe_share=1)
    fill(limit, 0)
    throttle(limit, 0, -1)
    seen = []
    for second in range(1, 61):
        while limit.inflight < limit.limit:
            limit.sent(second)
        for _ in range(50):
            limit.answered(second, second, None, None)
        seen.append(limit.limit)
    assert seen[4] == 94  # 100 * (1 - .15 * .75^3)
    assert seen[19] == 100
    assert seen[24] == 100  # the plateau
    assert seen[59] == 220


def test_the_level_refused_is_passed_only_after_enough_answers():
    limit = new_limit(initial=8, probe_share=0.02)
    fill(limit, 0)
    throttle(limit, 0, -1)
    limit.sent(1000)
    for _ in range(49):
        limit.answered(1000, 1000, None, None)
    assert limit.limit == 7
    limit.answered(1000, 1000, None, None)
    assert limit.limit == 8


def test_the_hold_off_is_what_the_upstream_asks_for():
    limit = new_limit()
    limit.sent(0)
    throttle(limit, 1, 0, retry_after=30)
    assert limit.retry_at == 31
    assert limit.wait(11) == 20
    assert not limit.available(30.9)
    assert limit.available(31)


def test_without_retry_after_the_hold_off_grows_with_the_throttles_in_a_row():
    limit = new_limit()
    waits = []
    now = 0.0
    for _ in range(200):
        limit.sent(now)
        throttle(limit, now, now)
        waits.append(limit.retry_at - now)
        now = limit.retry_at
    assert all(0.5 <= wait <= 8.5 for wait in waits)
    assert waits[0] <= 1.5
    assert sum(waits[100:]) / 100 == pytest.approx(4.5, abs=0.5)


def test_after_a_hold_off_probes_come_first():
    limit = new_limit(initial=40)
    fill(limit, 0)
    for _ in range(40):
        throttle(limit, 1, 0, retry_after=10)
    assert fill(limit, 11) == 1
    limit.answered(12, 11, 0.5, None)
    assert fill(limit, 12) == 3  # the answered one and two more
    for _ in range(2):
        limit.answered(13, 12, 0.5, None)
    assert fill(limit, 13) == 7


def test_a_probe_that_is_given_up_makes_room_for_the_next():
    limit = new_limit()
    limit.sent(0)
    throttle(limit, 1, 0, retry_after=1)
    assert fill(limit, 2) == 1
    limit.ended(3, 2, answered=False, tokens=0)
    assert limit.available(3)


def test_an_exhausted_quota_holds_off_and_says_nothing_of_concurrency():
    limit = new_limit()
    fill(limit, 0)
    limit.throttled(1, 0, UpstreamQuotaExhausted("come back tomorrow", status=429, retry_after=3600))
    assert limit.limit == 8
    assert limit.retry_at == 3601


def answer_at(limit, now, ttft, times=10):
    for _ in range(times):
        limit.answered(now, now - ttft, ttft, None)


def test_a_queue_at_the_upstream_lowers_the_limit():
    limit = new_limit(initial=40)
    fill(limit, 0)
    answer_at(limit, 1, 0.6)
    before = limit.limit
    answer_at(limit, 4, 1.7)
    assert limit.limit >= before
    before = limit.limit
    answer_at(limit, 7, 1.9)
    assert (limit.limit, limit.cause) == (34, "congested")
    answer_at(limit, 7, 0.6, times=9)
    assert limit.limit == 34  # no growth until a window is good again
    assert before > 34


def test_whole_bodies_say_nothing_of_a_queue():
    limit = new_limit(initial=40)
    fill(limit, 0)
    answer_at(limit, 1, 0.6)
    for now in (5, 10, 15):
        for _ in range(20):
            limit.answered(now, 0, None, None)
    assert limit.limit > 40


def test_a_fixed_limit_is_never_exceeded():
    limit = new_limit(max_concurrency=5)
    assert fill(limit, 0) == 5
    answer_at(limit, 1, 0.5, times=50)
    assert limit.limit == 5


def test_the_limit_of_the_hour():
    hours = {"now": 4}
    limit = new_limit(ceiling=lambda: hours["now"])
    assert fill(limit, 0) == 4
    hours["now"] = 20
    fill(limit, 0)
    answer_at(limit, 1, 0.5)
    assert (limit.limit, limit.cause) == (6, "slow start")
    hours["now"] = 0
    assert not limit.available(2)
    assert (limit.limit, limit.cause) == (0, "ceiling")
    hours["now"] = None
    limit.available(3)
    assert limit.limit >= 1


def test_dispatch_is_spread_over_what_is_left():
    limit = new_limit(initial=100)
    limit.sent(0)
    limit.answered(0, 0, None, Headroom(remaining_requests=10, reset_requests=60))
    assert fill(limit, 0) == 6  # one before, and half of what is left at once
    assert limit.retry_at == pytest.approx(6)
    assert fill(limit, 6) == 7
    limit.answered(7, 0, None, Headroom(remaining_requests=0, reset_requests=53))
    assert limit.retry_at == 60


def test_a_daily_quota_is_not_spread():
    limit = new_limit(initial=8)
    limit.sent(0)
    limit.answered(0, 0, None, Headroom(remaining_requests=20, reset_requests=40000))
    assert fill(limit, 0) == limit.limit


def test_tokens_are_spread_by_what_an_attempt_takes():
    limit = new_limit(initial=50)
    for _ in range(2):
        limit.sent(0)
    limit.ended(0, 0, answered=True, tokens=1000)
    limit.answered(0, 0, None, Headroom(remaining_tokens=8000, reset_tokens=60))
    assert fill(limit, 0) == 5


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["send", "answer", "throttle", "fail", "end", "wait"]), st.floats(0.001, 30)
        ),
        max_size=300,
    )
)
def test_the_account_of_permits_is_right_whatever_happens(steps):
    limit = new_limit()
    now = 0.0
    waiting, flowing = [], []
    for step, number in steps:
        if step == "wait":
            now += number
        elif step == "send" and limit.available(now):
            limit.sent(now)
            waiting.append(now)
            assert limit.inflight <= limit.limit
        elif step == "answer" and waiting:
            sent = waiting.pop(0)
            limit.answered(now, sent, now - sent, None)
            flowing.append(sent)
        elif step == "throttle" and waiting:
            throttle(limit, now, waiting.pop(0), retry_after=number)
        elif step == "fail" and waiting:
            limit.ended(now, waiting.pop(0), answered=False, tokens=0)
        elif step == "end" and flowing:
            limit.ended(now, flowing.pop(0), answered=True, tokens=10)
        assert limit.inflight == len(waiting) + len(flowing)
        assert limit.limit >= 1
    for sent in waiting:
        limit.ended(now, sent, answered=False, tokens=0)
    for sent in flowing:
        limit.ended(now, sent, answered=True, tokens=10)
    assert limit.inflight == 0
    assert limit.available(max(now, limit.retry_at))  # nothing is held back for ever


@pytest.mark.parametrize(
    "options",
    [
        {"initial": 0},
        {"max_concurrency": 0},
        {"decrease": 1},
        {"busy_share": 0},
        {"growth_period": 0},
    ],
)
def test_options_are_checked(options):
    with pytest.raises(ValueError, match="must"):
        AdaptiveOptions(**options)


def layered(upstream, patience=0, **options):
    meter, clock = RecordingMeter(), LoopClock()
    permits = Permits(new_limit(**options), clock=clock)
    layer = AdaptiveConcurrency(
        upstream, upstream="up", permits=permits, patience=patience, clock=clock, meter=meter
    )
    return layer, permits, meter


def test_a_permit_lasts_for_the_whole_stream():
    layer, permits, _ = layered(ScriptedUpstream([[Wait(1), "a", Wait(9), "b"]]))

    async def main():
        task = asyncio.create_task(read_text(layer, make_call()))
        await asyncio.sleep(5)
        assert permits.limit.inflight == 1
        assert await task == "ab"
        assert permits.limit.inflight == 0

    run_virtual(main())


@pytest.mark.parametrize("part", [[UpstreamUnavailable("down")], ["a", UpstreamUnavailable("cut")], [BUSY]])
def test_a_permit_is_given_back_on_an_error(part):
    layer, permits, _ = layered(ScriptedUpstream([part]))
    with pytest.raises((UpstreamUnavailable, UpstreamBusy)):
        run_virtual(read_text(layer, make_call()))
    assert permits.limit.inflight == 0


@pytest.mark.parametrize("part", [[Wait(60), "a"], ["a", Wait(60), "b"]])
def test_a_permit_is_given_back_on_cancellation(part):
    upstream = ScriptedUpstream([part])
    layer, permits, _ = layered(upstream)

    async def main():
        task = asyncio.create_task(read_text(layer, make_call()))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(main())
    assert permits.limit.inflight == upstream.active == 0


def test_a_permit_is_given_back_on_leaving_early():
    layer, permits, _ = layered(ScriptedUpstream([["a", Wait(60), "b"]]))

    async def main():
        async with layer(make_call()):
            pass

    run_virtual(main())
    assert permits.limit.inflight == 0


def test_at_the_limit_a_call_is_refused_and_nothing_is_opened():
    upstream = ScriptedUpstream([["a", Wait(60), "b"]])
    layer, permits, meter = layered(upstream, max_concurrency=2)

    async def main():
        tasks = [asyncio.create_task(read_text(layer, make_call())) for _ in range(2)]
        await asyncio.sleep(0)
        clock = LoopClock()
        layer_full = not permits.available(clock.now())
        with pytest.raises(UpstreamThrottled) as refused:
            await read_text(layer, make_call())
        assert layer_full
        assert refused.value.status is None
        assert refused.value.retry_after > 0
        await asyncio.gather(*tasks)

    run_virtual(main())
    assert len(upstream.opened) == 2
    assert [fact.gate for fact in meter.of(AttemptRefused)] == ["limit"]


def test_a_throttle_is_passed_on_and_holds_off():
    upstream = ScriptedUpstream([[UpstreamThrottled("slow down", status=429, retry_after=7)], ["a"]])
    layer, permits, meter = layered(upstream)

    async def main():
        with pytest.raises(UpstreamThrottled) as refused:
            await read_text(layer, make_call())
        assert refused.value.status == 429
        with pytest.raises(UpstreamThrottled) as refused:
            await read_text(layer, make_call())
        assert refused.value.retry_after == 7
        await asyncio.sleep(7)
        assert permits.limit.retry_at == 7
        assert await read_text(layer, make_call()) == "a"

    run_virtual(main())
    assert len(upstream.opened) == 2
    assert meter.of(LimitChanged)[0].cause == "throttled"
    assert meter.of(AttemptRefused)[0].gate == "hold-off"


def test_with_patience_calls_wait_in_their_order():
    upstream = ScriptedUpstream([["a", Wait(2), "b"]])
    layer, permits, meter = layered(upstream, max_concurrency=1, patience=5)
    done = []

    async def one(number):
        try:
            await read_text(layer, make_call())
            done.append((number, asyncio.get_running_loop().time()))
        except UpstreamThrottled:
            done.append((number, "refused"))

    async def main():
        await asyncio.gather(*[one(number) for number in range(4)])

    run_virtual(main())
    assert done == [(0, 2), (1, 4), (3, "refused"), (2, 6)]
    assert upstream.most_active == 1
    assert len(meter.of(AttemptRefused)) == 1
    assert permits.limit.inflight == permits.waiting == 0


def test_who_waits_is_woken_when_the_hold_off_ends():
    upstream = ScriptedUpstream([[UpstreamThrottled("slow down", status=429, retry_after=3)], ["a"]])
    layer, _, _ = layered(upstream, patience=10)

    async def main():
        with pytest.raises(UpstreamThrottled):
            await read_text(layer, make_call())
        assert await read_text(layer, make_call()) == "a"
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 3


def test_patience_is_not_spent_on_a_longer_hold_off():
    upstream = ScriptedUpstream([[UpstreamThrottled("slow down", status=429, retry_after=60)], ["a"]])
    layer, _, _ = layered(upstream, patience=10)

    async def main():
        for _ in range(2):
            with pytest.raises(UpstreamThrottled):
                await read_text(layer, make_call())
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 0


def test_a_little_patience_is_for_a_turn_and_not_for_a_hold_off():
    upstream = ScriptedUpstream([[UpstreamThrottled("slow down", status=429, retry_after=0.5)], ["a"]])
    layer, _, _ = layered(upstream, patience=1)

    async def main():
        for _ in range(2):
            with pytest.raises(UpstreamThrottled):
                await read_text(layer, make_call())
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 0


@pytest.mark.parametrize("when", [1, 2])
def test_who_waits_may_be_cancelled_even_as_the_permit_comes(when):
    layer, permits, _ = layered(ScriptedUpstream([["a", Wait(2), "b"]]), max_concurrency=1, patience=5)

    async def main():
        first = asyncio.create_task(read_text(layer, make_call()))
        await asyncio.sleep(0)
        second = asyncio.create_task(read_text(layer, make_call()))
        third = asyncio.create_task(read_text(layer, make_call()))
        if when == 1:
            await asyncio.sleep(1)
        else:
            await first
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert await third == "ab"
        assert permits.limit.inflight == permits.waiting == 0

    run_virtual(main())

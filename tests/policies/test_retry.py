import asyncio
import math
import random
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.budget import BudgetOptions, RetryBudget
from policies.errors import (
    AttemptHeldBack,
    DeadlineExceeded,
    InvalidRequest,
    NoHealthyUpstream,
    StreamInterrupted,
    UpstreamBusy,
    UpstreamContextTooLong,
    UpstreamKeyRejected,
    UpstreamQuotaExhausted,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from policies.facts import RetryRefused, RetryScheduled
from policies.observe import ObserveAttempts
from policies.retry import Backoff, Retry, RetryOptions
from tests.kit.upstream import RecordingMeter, ScriptedUpstream, Wait, make_call, read_text
from tests.kit.virtual_time import LoopClock, run_virtual

BUSY = UpstreamBusy("busy")
DOWN = UpstreamUnavailable("down")
SILENT = UpstreamTimeout("silent")
AMPLE = BudgetOptions(ratio=1, per_second=100)


class Ceiling(random.Random):
    """Draws the upper end, so that the waits are the ceilings."""

    def uniform(self, a, b):
        return b


def backoff(rng=None, **options):
    return Backoff(RetryOptions(**options), rng or Ceiling())


def decide(state, error, upstream="up", **facts):
    return state.after(error, upstream, **{"another": False, "now": 0.0, "deadline": math.inf, **facts})


# Decisions


def test_throttling_waits_long_and_faults_wait_short():
    assert [decide(backoff(), BUSY), decide(backoff(), DOWN)] == [1.0, 0.05]


def test_the_ceiling_doubles_up_to_the_cap():
    state = backoff(attempts=9)
    assert [decide(state, BUSY) for _ in range(8)] == [1, 2, 4, 8, 16, 20, 20, 20]


def test_attempts_count_the_first_one():
    state = backoff(attempts=3)
    assert [decide(state, BUSY) for _ in range(3)] == [1, 2, None]


def test_another_upstream_is_tried_at_once():
    state = backoff(attempts=9)
    throttled = UpstreamThrottled("slow down", retry_after=30)
    for error in (BUSY, DOWN, SILENT, throttled, UpstreamKeyRejected("402"), UpstreamQuotaExhausted("day")):
        assert decide(state, error, another=True) == 0.0


@pytest.mark.parametrize("error", [SILENT, UpstreamKeyRejected("401"), UpstreamQuotaExhausted("day")])
def test_some_are_never_tried_twice(error):
    assert decide(backoff(), error) is None


def test_a_silent_one_is_not_tried_again_after_another_failed_too():
    state = backoff(attempts=9)
    assert decide(state, SILENT, "a", another=True) == 0
    assert decide(state, BUSY, "b") is None


def test_a_fault_is_tried_again_once():
    state = backoff(attempts=9)
    assert decide(state, DOWN) == 0.05
    assert decide(state, DOWN) is None


def test_a_fault_of_each_of_two_is_tried_again_once():
    state = backoff(attempts=9)
    assert decide(state, DOWN, "a", another=True) == 0
    assert decide(state, DOWN, "b") is not None
    assert decide(state, DOWN, "a") is None


@pytest.mark.parametrize(
    "error", [UpstreamRejected("400", status=400), UpstreamContextTooLong("400", status=400)]
)
def test_a_refused_call_is_not_tried_again_anywhere(error):
    assert decide(backoff(), error, another=True) is None


def test_retry_after_is_the_floor_and_jitter_stands_on_it():
    assert decide(backoff(), UpstreamThrottled("", retry_after=7)) == 8.0
    assert decide(backoff(), UpstreamUnavailable("", retry_after=7)) == 7.05


def test_retry_after_counts_from_when_it_was_said():
    state = backoff(attempts=9)
    assert decide(state, UpstreamBusy("", retry_after=10), "a", another=True, now=0) == 0
    assert decide(state, BUSY, "b", now=4) == 6 + 2


def test_a_wait_past_the_deadline_is_not_begun():
    assert decide(backoff(), BUSY, now=9, deadline=10) is None
    assert decide(backoff(), BUSY, now=8.9, deadline=10) == 1.0
    assert decide(backoff(), BUSY, another=True, now=10, deadline=10) is None


def test_patience_goes_on_to_the_next_step():
    assert decide(backoff(patience=0.05), BUSY) is None
    assert decide(backoff(patience=0.05), DOWN) == 0.05
    assert decide(backoff(patience=5), UpstreamBusy("", retry_after=6)) is None
    assert decide(backoff(patience=0), DOWN, another=True) == 0


@given(
    seed=st.integers(),
    retry_after=st.none() | st.floats(0, 100),
    failures=st.lists(st.sampled_from([UpstreamBusy, UpstreamUnavailable, UpstreamTimeout]), max_size=6),
    deadline=st.floats(0, 200),
)
def test_no_wait_is_below_the_floor_or_beyond_the_deadline(seed, retry_after, failures, deadline):
    options = RetryOptions(attempts=6)
    state, now = Backoff(options, random.Random(seed)), 0.0
    for kind in failures:
        error = kind("", retry_after=retry_after)
        wait = decide(state, error, now=now, deadline=deadline)
        if wait is None:
            break
        assert wait >= (retry_after or 0)
        assert wait <= (retry_after or 0) + options.cap
        assert now + wait < deadline
        now += wait


@pytest.mark.parametrize(
    "options",
    [{"attempts": 0}, {"base": 0}, {"base": 30}, {"throttled_base": 21}, {"patience": -1}],
)
def test_options_are_checked(options):
    with pytest.raises(ValueError, match=r"give|above"):
        RetryOptions(**options)


# The layer


class Picks:
    """A group of equals that picks them in turn, passing over those that were tried."""

    def __init__(self, *upstreams, meter):
        self.members = {
            upstream.name: ObserveAttempts(
                upstream, upstream=upstream.name, model="m", clock=LoopClock(), meter=meter
            )
            for upstream in upstreams
        }

    def untried(self, call):
        tried = {attempt.upstream for attempt in call.attempts}
        return [name for name in self.members if name not in tried]

    def another(self, call):
        return bool(self.untried(call))

    def __call__(self, call):
        name = (self.untried(call) or list(self.members))[0]
        return self.members[name](call)


def retrying(*upstreams, budget=AMPLE, rng=None, **options):
    meter = RecordingMeter()
    group = Picks(*upstreams, meter=meter)
    service = Retry(
        group,
        RetryOptions(**options),
        budget=RetryBudget(budget),
        another=group.another,
        clock=LoopClock(),
        rng=rng or Ceiling(),
        meter=meter,
    )
    return service, meter


def test_success_passes_through():
    upstream = ScriptedUpstream([["a", "b"]])
    service, meter = retrying(upstream)
    assert run_virtual(read_text(service, make_call())) == "ab"
    assert upstream.opened == [0]
    assert not meter.of(RetryScheduled)


def test_another_upstream_answers_without_a_wait():
    first, second = ScriptedUpstream([[BUSY]], "a"), ScriptedUpstream([["ok"]], "b")
    service, meter = retrying(first, second)
    assert run_virtual(read_text(service, make_call())) == "ok"
    assert (first.opened, second.opened) == ([0], [0])
    (fact,) = meter.of(RetryScheduled)
    assert (fact.failure, fact.upstream, fact.wait) == ("UpstreamBusy", "a", 0)


def test_the_same_upstream_is_asked_again_after_its_retry_after():
    upstream = ScriptedUpstream([[UpstreamBusy("", retry_after=5)], [UpstreamBusy("")], ["ok"]])
    service, _ = retrying(upstream)
    call = make_call()
    assert run_virtual(read_text(service, call)) == "ok"
    assert upstream.opened == [0, 6, 8]
    assert call.queued == 8  # nobody was asked meanwhile


def test_the_last_failure_is_raised_as_it_came():
    last = UpstreamBusy("last", retry_after=1)
    upstream = ScriptedUpstream([[BUSY], [BUSY], [last]])
    service, _ = retrying(upstream)
    with pytest.raises(UpstreamBusy) as caught:
        run_virtual(read_text(service, make_call()))
    assert caught.value is last
    assert len(upstream.opened) == 3


def test_without_budget_the_failure_is_raised():
    upstream = ScriptedUpstream([[BUSY]])
    service, meter = retrying(upstream, budget=BudgetOptions(ratio=0, per_second=0))
    with pytest.raises(UpstreamBusy) as caught:
        run_virtual(read_text(service, make_call()))
    assert caught.value is BUSY
    assert len(upstream.opened) == 1
    assert len(meter.of(RetryRefused)) == 1


def test_a_retry_that_is_answered_costs_nothing():
    first, second = ScriptedUpstream([[DOWN]], "a"), ScriptedUpstream([["ok"]], "b")
    service, _ = retrying(first, second, budget=BudgetOptions(ratio=0, per_second=0.1))

    async def many():
        return [await read_text(service, make_call()) for _ in range(50)]

    assert run_virtual(many()) == ["ok"] * 50


def test_an_attempt_that_was_held_back_costs_nothing():
    upstream = ScriptedUpstream([[AttemptHeldBack("gate")], ["ok"]])
    service, _ = retrying(upstream, budget=BudgetOptions(ratio=0, per_second=0))
    assert run_virtual(read_text(service, make_call())) == "ok"
    assert service.budget.balance(1) == 0


def test_an_attempt_that_was_held_back_does_not_hide_what_the_upstream_said():
    upstream = ScriptedUpstream([[BUSY], [AttemptHeldBack("gate")]])
    service, _ = retrying(upstream)
    with pytest.raises(UpstreamBusy, match="busy"):
        run_virtual(read_text(service, make_call()))
    service, _ = retrying(ScriptedUpstream([[AttemptHeldBack("gate")]]))
    with pytest.raises(AttemptHeldBack):
        run_virtual(read_text(service, make_call()))


@pytest.mark.parametrize(
    "error",
    [
        UpstreamRejected("400", status=400),
        InvalidRequest("no"),
        DeadlineExceeded("late"),
        NoHealthyUpstream("none"),
    ],
)
def test_what_cannot_change_is_passed_on(error):
    upstream = ScriptedUpstream([[error]])
    service, _ = retrying(upstream)
    with pytest.raises(type(error)) as caught:
        run_virtual(read_text(service, make_call()))
    assert caught.value is error
    assert len(upstream.opened) == 1


def test_a_silent_upstream_is_tried_once():
    upstream = ScriptedUpstream([[Wait(20), SILENT], ["ok"]])
    service, _ = retrying(upstream)
    with pytest.raises(UpstreamTimeout):
        run_virtual(read_text(service, make_call()))
    assert len(upstream.opened) == 1


def test_a_group_that_has_nobody_left_does_not_mask_the_failure():
    upstream = ScriptedUpstream([[DOWN], [NoHealthyUpstream("ejected")]])
    service, _ = retrying(upstream)
    with pytest.raises(UpstreamUnavailable) as caught:
        run_virtual(read_text(service, make_call()))
    assert caught.value is DOWN


def test_nothing_is_retried_after_the_first_event():
    upstream = ScriptedUpstream([["a", StreamInterrupted("cut")], ["b"]])
    service, _ = retrying(upstream)
    with pytest.raises(StreamInterrupted):
        run_virtual(read_text(service, make_call()))
    assert len(upstream.opened) == 1


def test_nothing_is_retried_after_the_first_event_of_a_retry():
    upstream = ScriptedUpstream([[BUSY], ["a", StreamInterrupted("cut")], ["b"]])
    service, _ = retrying(upstream)
    with pytest.raises(StreamInterrupted):
        run_virtual(read_text(service, make_call()))
    assert len(upstream.opened) == 2
    assert upstream.active == 0


@pytest.mark.parametrize("after", [0.5, 1.5, 2.5])
def test_cancellation_passes_on_and_releases(after):
    upstream = ScriptedUpstream([[Wait(1), BUSY], [Wait(1), "a", Wait(9), "b"]])
    service, _ = retrying(upstream)

    async def cancel():
        task = asyncio.create_task(read_text(service, make_call()))
        await asyncio.sleep(after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert upstream.active == 0

    run_virtual(cancel())


@pytest.mark.parametrize("script", [[["a", "b"]], [[BUSY], ["a", "b"]]])
def test_leaving_early_releases(script):
    upstream = ScriptedUpstream(script)
    service, _ = retrying(upstream)

    async def leave():
        async with service(make_call()):
            assert upstream.active == 1
        assert upstream.active == 0

    run_virtual(leave())


@pytest.mark.parametrize("script", [[["a"]], [[BUSY], ["a"]]])
def test_the_consumers_error_reaches_the_layers_inside(script):
    upstream = ScriptedUpstream(script)
    seen = []

    @asynccontextmanager
    async def watched(call):
        try:
            async with upstream(call) as reply:
                yield reply
        except BaseException as error:
            seen.append(error)
            raise

    watched.name = "up"
    service, _ = retrying(watched)

    async def fail():
        async with service(make_call()):
            raise InvalidRequest("mine")

    with pytest.raises(InvalidRequest):
        run_virtual(fail())
    assert isinstance(seen[-1], InvalidRequest)

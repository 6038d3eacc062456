import asyncio

import pytest

from policies.errors import (
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
    UpstreamUnsuited,
)
from policies.facts import FailedOver
from policies.failover import Failover, Step
from policies.observe import ObserveAttempts
from policies.service import Attempt
from tests.kit.upstream import RecordingMeter, ScriptedUpstream, Wait, make_call, read_text
from tests.kit.virtual_time import LoopClock, run_virtual

DOWN = UpstreamUnavailable("down")
POLICY = UpstreamRejected("content policy", status=400)
LONG = UpstreamContextTooLong("too long", status=400)


def route(*scripts, windows=(None, None, None)):
    upstreams = [ScriptedUpstream([list(script)], name="abc"[k]) for k, script in enumerate(scripts)]
    steps = [Step(up.name, up, window) for up, window in zip(upstreams, windows, strict=False)]
    meter = RecordingMeter()
    return Failover(steps, meter=meter), upstreams, meter


def opened(upstreams):
    return [len(upstream.opened) for upstream in upstreams]


def error_of(service, call=None):
    with pytest.raises(Exception) as caught:
        run_virtual(read_text(service, call or make_call()))
    return caught.value


def test_the_first_step_answers():
    service, upstreams, meter = route(["ok"], ["other"])
    assert run_virtual(read_text(service, make_call())) == "ok"
    assert opened(upstreams) == [1, 0]
    assert meter.facts == []


@pytest.mark.parametrize(
    "error",
    [
        UpstreamThrottled("429"),
        UpstreamBusy("503"),
        UpstreamTimeout("silence"),
        UpstreamUnavailable("reset"),
        UpstreamKeyRejected("402"),
        UpstreamQuotaExhausted("day"),
        UpstreamUnsuited("no such model", status=404),
        NoHealthyUpstream("all ejected"),
    ],
)
def test_a_step_that_cannot_answer_is_followed_by_the_next(error):
    service, upstreams, meter = route([error], ["ok"])
    assert run_virtual(read_text(service, make_call())) == "ok"
    assert opened(upstreams) == [1, 1]
    (fact,) = meter.of(FailedOver)
    assert (fact.failure, fact.target) == (type(error).__name__, "b")


@pytest.mark.parametrize("error", [POLICY, InvalidRequest("mine"), DeadlineExceeded("late")])
def test_the_callers_error_is_passed_on(error):
    service, upstreams, _ = route([error], ["ok"])
    assert error_of(service) is error
    assert opened(upstreams) == [1, 0]


@pytest.mark.parametrize("refusal", [POLICY, LONG])
def test_a_fallbacks_refusal_does_not_mask_the_failure(refusal):
    service, upstreams, _ = route([DOWN], [refusal])
    assert error_of(service) is DOWN
    service, upstreams, _ = route([DOWN], [refusal], ["ok"])
    assert run_virtual(read_text(service, make_call())) == "ok"
    assert opened(upstreams) == [1, 1, 1]


@pytest.mark.parametrize(
    ("windows", "counts"),
    [
        ((8, 8, 32), [1, 0, 1]),
        ((8, 4, 8), [1, 0, 0]),
        ((8, None, 32), [1, 1, 1]),
        ((None, 8, 32), [1, 1, 1]),
        ((8, 32, 16), [1, 1, 0]),
    ],
)
def test_a_long_prompt_goes_to_a_larger_window(windows, counts):
    service, upstreams, _ = route([LONG], [LONG], [LONG], windows=windows)
    assert isinstance(error_of(service), UpstreamContextTooLong)
    assert opened(upstreams) == counts


def test_an_error_that_every_step_would_give_is_passed_on_as_it_came():
    nowhere = UpstreamUnsuited("no such model", status=404)
    service, upstreams, _ = route([nowhere], [nowhere])
    assert error_of(service) is nowhere
    assert opened(upstreams) == [1, 1]


def test_when_the_larger_window_is_down_that_is_the_failure():
    service, _, _ = route([LONG], [DOWN], windows=(8, 32))
    assert error_of(service) is DOWN


def test_all_failures_are_told_with_the_earliest_return():
    causes = [UpstreamBusy("503", retry_after=9), UpstreamThrottled("429", retry_after=4), DOWN]
    service, _, _ = route(*[[cause] for cause in causes])
    error = error_of(service)
    assert isinstance(error, NoHealthyUpstream)
    assert error.causes == tuple(causes)
    assert error.retry_after == 4
    assert "in 4 s" in error.message


def test_a_groups_own_causes_are_kept():
    inner = NoHealthyUpstream("out", causes=[DOWN, DOWN], retry_after=3)
    service, _, _ = route([inner], [UpstreamTimeout("silence")])
    error = error_of(service)
    assert [type(cause) for cause in error.causes] == [
        UpstreamUnavailable,
        UpstreamUnavailable,
        UpstreamTimeout,
    ]
    assert error.retry_after == 3


@pytest.mark.parametrize("error", [DOWN, NoHealthyUpstream("out", retry_after=3)])
def test_a_single_failure_is_raised_as_it_is(error):
    service, _, _ = route([error])
    assert error_of(service) is error


def test_nothing_is_opened_after_the_first_event():
    service, upstreams, _ = route(["a", StreamInterrupted("cut")], ["ok"])
    assert isinstance(error_of(service), StreamInterrupted)
    assert opened(upstreams) == [1, 0]
    assert upstreams[0].active == 0


def test_a_call_with_a_history_goes_to_somebody_else_first():
    upstreams = [ScriptedUpstream([["a"]], "a"), ScriptedUpstream([["b"]], "b")]

    def untried(name):
        return lambda call: all(attempt.upstream != name for attempt in call.attempts)

    steps = [Step(up.name, up, another=untried(up.name)) for up in upstreams]
    service = Failover(steps, meter=RecordingMeter())
    history = [Attempt("a", "m", "StreamInterrupted")]
    assert run_virtual(read_text(service, make_call(attempts=history))) == "b"
    history.append(Attempt("b", "m", "StreamInterrupted"))
    assert run_virtual(read_text(service, make_call(attempts=history))) == "a"


@pytest.mark.parametrize("after", [0.5, 1.5, 2.5])
def test_cancellation_passes_on_and_releases(after):
    service, upstreams, _ = route([Wait(1), DOWN], [Wait(1), "a", Wait(9), "b"])

    async def cancel():
        task = asyncio.create_task(read_text(service, make_call()))
        await asyncio.sleep(after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [upstream.active for upstream in upstreams] == [0, 0]

    run_virtual(cancel())


def test_leaving_early_releases():
    service, upstreams, _ = route([DOWN], ["a", "b"])

    async def leave():
        async with service(make_call()):
            assert upstreams[1].active == 1
        assert upstreams[1].active == 0

    run_virtual(leave())


def test_a_route_is_checked():
    with pytest.raises(ValueError, match="route"):
        Failover([], meter=RecordingMeter())
    with pytest.raises(ValueError, match="above 0"):
        Step("a", ScriptedUpstream([["a"]]), 0)


# Equals whose windows differ


def equals(*scripts, windows):
    """One step whose members are picked in turn, followed by its larger members as the stack makes them."""
    upstreams = [ScriptedUpstream([list(script)], name="abc"[k]) for k, script in enumerate(scripts)]
    named = dict(zip("abc", windows, strict=False))
    meter, clock = RecordingMeter(), LoopClock()

    def step(names, beyond=None):
        members = [
            ObserveAttempts(upstream, upstream=upstream.name, model="m", clock=clock, meter=meter)
            for upstream in upstreams
            if upstream.name in names
        ]
        known = [named[name] for name in names if named[name]]
        largest = max(known) if len(known) == len(names) else None
        return Step(names, members[0], largest, None, lambda attempt: named[attempt.upstream], beyond)

    sizes = sorted({size for size in windows if size})
    larger = {size: "".join(name for name in named if (named[name] or size + 1) > size) for size in sizes}
    after = [step(names, size) for size, names in larger.items() if names]
    return Failover([step("".join(named)), *after], meter=meter), upstreams


def test_a_long_prompt_goes_to_a_larger_member_of_its_step():
    service, upstreams = equals([LONG], ["ok"], windows=(8, 32))
    assert run_virtual(read_text(service, make_call())) == "ok"
    assert opened(upstreams) == [1, 1]


def test_each_try_is_at_a_larger_one():
    service, upstreams = equals([LONG], [LONG], ["ok"], windows=(8, 16, 32))
    assert run_virtual(read_text(service, make_call())) == "ok"
    assert opened(upstreams) == [1, 1, 1]
    service, upstreams = equals([LONG], [LONG], [LONG], windows=(16, 8, 32))
    assert error_of(service) is LONG
    assert opened(upstreams) == [1, 0, 1]


@pytest.mark.parametrize("windows", [(32, 8), (8, 8), (None, 8)])
def test_smaller_and_equal_ones_are_not_asked(windows):
    service, upstreams = equals([LONG], ["ok"], windows=windows)
    assert error_of(service) is LONG
    assert opened(upstreams) == [1, 0]


def test_one_of_unknown_size_is_asked():
    service, upstreams = equals([LONG], ["ok"], windows=(8, None))
    assert run_virtual(read_text(service, make_call())) == "ok"
    assert opened(upstreams) == [1, 1]


def test_larger_members_take_nothing_but_long_prompts():
    service, upstreams = equals([DOWN], ["ok"], windows=(8, 32))
    assert error_of(service) is DOWN
    assert opened(upstreams) == [1, 0]

"""Faults before any part of an answer came: with a fallback the client hears nothing of them."""

import pytest

from tests.chaos.scene import FIRST_TOKEN, GOOD, PING, TOKENS, UNARY, gaps
from tests.kit import answers

LATE = 1.5
"""Seconds that a busy machine may add."""

BROKEN = {  # fault: attempts at an upstream that shows it, where there is a fallback and where there is none
    "status:code=500": 2,
    "status:code=502": 2,
    "status:code=408": 2,
    "reset": 2,
    "garbage": 2,
    "cut:at=0": 2,
    "cut:at=0,how=fin": 2,
    "cut:at=0,how=clean": 2,
    "malformed:at=1": 2,
    "blank": 2,
    "blank:comments=0.1": 2,
    "error_body": 2,
    "error_body:code=500": 2,
    "html": 2,
}
"""Broken, perhaps only now: tried once more at once."""

SILENT = {
    "silence": "upstream_timeout",
    f"ok:tokens={TOKENS},comments=9": "upstream_timeout",
    "stall:at=0,comments=1": "upstream_timeout",
}
BUSY = ["status:code=503", "status:code=529", "status:code=429", "error_body:code=503", "error_body:code=429"]
CAPPED = {
    "status:code=429,after=900": (429, "upstream_throttled"),
    "status:code=429,after=900,form=date": (429, "upstream_throttled"),
    "status:code=429,after=900,form=ms": (429, "upstream_throttled"),
    "status:code=503,after=900": (503, "upstream_busy"),
    "status:code=429,error=insufficient_quota,after=900": (503, "upstream_quota_exhausted"),
    "status:code=429,error=insufficient_quota": (503, "upstream_quota_exhausted"),
    "status:code=401": (502, "upstream_key_rejected"),
    "status:code=402": (502, "upstream_key_rejected"),
    "status:code=403": (502, "upstream_key_rejected"),
}
both_kinds = pytest.mark.parametrize("stream", [True, False], ids=["stream", "unary"])


@both_kinds
@pytest.mark.parametrize("fault", [*BROKEN, *BUSY, *CAPPED])
def test_a_fallback_answers_at_once(scene, fault, stream):
    at = scene("pair").set(fault, GOOD)
    got = at.ask(stream=stream)
    got.is_whole()
    assert got.usage == answers.usage(TOKENS)
    assert at.saw(got) == (BROKEN.get(fault, 1), 1)
    assert got.waited < LATE
    assert got.upstream == "good" or got.comments, "a ping went out before it was known"


@pytest.mark.parametrize("fault", [*BROKEN, *BUSY, *CAPPED])
def test_an_equal_answers_at_once(scene, fault):
    at = scene("equals").set(fault, GOOD)
    got = at.ask()
    got.is_whole()
    assert at.saw(got) == (1, 1)
    assert got.waited < LATE


@both_kinds
@pytest.mark.parametrize("family", ["pair", "equals"])
@pytest.mark.parametrize("fault", SILENT)
def test_silence_is_given_up_at_its_first_timeout(scene, fault, family, stream):
    at = scene(family).set(fault, GOOD)
    got = at.ask(stream=stream)
    got.is_whole()
    assert at.saw(got) == (1, 1)
    limit = FIRST_TOKEN if stream else UNARY
    assert got.seconds >= limit
    assert got.waited < limit + LATE
    assert at.bad_ended(got) == "disconnected"


@both_kinds
def test_a_slow_first_token_in_time_is_waited_for(scene, stream):
    at = scene("pair").set(f"ok:tokens={TOKENS},first=0.5", GOOD)
    got = at.ask(stream=stream)
    got.is_whole()
    assert at.saw(got) == (1, 0)


@both_kinds
@pytest.mark.parametrize("fault", BROKEN)
def test_alone_it_is_tried_once_more(scene, fault, stream):
    at = scene("alone").set(fault)
    got = at.ask(stream=stream)
    got.ended_with(502, "upstream_unavailable")
    assert at.saw(got) == (2, 0)
    assert got.waited < 2 * LATE
    at.set(f"{fault}{',' if ':' in fault else ':'}times=1,tokens={TOKENS}")
    recovered = at.ask(stream=stream)
    recovered.is_whole()
    assert at.saw(recovered) == (2, 0)


@both_kinds
@pytest.mark.parametrize("fault", SILENT)
def test_alone_silence_is_not_tried_twice(scene, fault, stream):
    at = scene("alone").set(fault)
    got = at.ask(stream=stream)
    got.ended_with(504, SILENT[fault])
    assert at.saw(got) == (1, 0)
    assert got.waited < (FIRST_TOKEN if stream else UNARY) + LATE


@both_kinds
@pytest.mark.parametrize("fault", CAPPED)
def test_alone_what_lasts_is_told_at_once(scene, fault, stream):
    at = scene("alone").set(fault)
    got = at.ask(stream=stream)
    got.failed(*CAPPED[fault])
    assert at.saw(got) == (1, 0)
    assert got.waited < LATE
    if "after=900" in fault:
        assert 890 < float(got.headers["retry-after"]) <= 900
    again = at.ask(stream=stream)
    assert again.status in {429, 503}
    assert "retry-after" in again.headers
    assert at.saw(again) == (0, 0), "asked again although it said when"


@both_kinds
@pytest.mark.parametrize("fault", BUSY)
def test_alone_a_busy_one_is_asked_again_after_a_while(scene, fault, stream):
    at = scene("alone").set(f"{fault}{',' if ':' in fault else ':'}times=1,tokens={TOKENS}")
    got = at.ask(stream=stream)
    got.is_whole()
    (gap,) = gaps(at.bad_saw(got))
    assert gap > 0.5
    assert got.waited < 0.5 + 1 + 1 + LATE


@pytest.mark.parametrize("form", ["seconds", "ms", "date"])
def test_retry_after_is_waited_for(scene, form):
    after = {"seconds": 0.8, "ms": 0.65, "date": 2}[form]
    at = scene("alone").set(f"status:code=429,after={after},form={form},times=1,tokens={TOKENS}")
    got = at.ask(stream=False)
    got.is_whole()
    (gap,) = gaps(at.bad_saw(got))
    least = after - 1 if form == "date" else after  # a date has whole seconds
    assert gap >= least
    assert got.waited < after + 1 + LATE


def test_attempts_are_few_and_spaced(scene):
    at = scene("alone").set("status:code=429,after=0.3")
    got = at.ask(stream=False)
    got.failed(429, "upstream_throttled")
    seen = at.bad_saw(got)
    assert len(seen) == 3
    assert min(gaps(seen)) >= 0.3


@both_kinds
def test_a_refused_key_is_left_alone(scene, stream):
    at = scene("pair").set("status:code=401", GOOD)
    at.ask(stream=stream).is_whole()
    again = at.ask(stream=stream)
    again.is_whole()
    assert at.saw(again) == (0, 1)


def test_a_daily_cap_blocks_until_its_reset(scene):
    at = scene("alone").set(f"status:code=429,error=insufficient_quota,after=2,times=1,tokens={TOKENS}")
    first = at.ask(stream=False)
    first.failed(503, "upstream_quota_exhausted")
    (refused,) = at.bad_saw(first)
    got = at.ask(stream=False)
    while got.status != 200:
        got.failed(503, "no_healthy_upstream")
        assert at.saw(got) == (0, 0)
        assert float(got.headers["retry-after"]) <= 2
        got = at.ask(stream=False)
    got.is_whole()
    (served,) = at.bad_saw(got)
    assert served["arrived"] - refused["arrived"] >= 2


@both_kinds
def test_a_prompt_too_long_goes_to_the_next_step(scene, stream):
    at = scene("pair").set("status:code=400,error=context_length_exceeded", GOOD)
    got = at.ask(stream=stream)
    got.is_whole()
    assert at.saw(got) == (1, 1)
    at.set(good="status:code=400,error=context_length_exceeded")
    refused = at.ask(stream=stream)
    refused.failed(400, "context_length_exceeded")
    assert at.saw(refused) == (1, 1)


@both_kinds
@pytest.mark.parametrize("family", ["grow", "grow-equals"])
def test_a_prompt_too_long_goes_to_a_larger_window(scene, family, stream):
    at = scene(family).set("status:code=400,error=context_length_exceeded", GOOD)
    got = at.ask(stream=stream)
    got.is_whole()
    assert (got.upstream, at.saw(got)) == ("good", (1, 1))


@both_kinds
@pytest.mark.parametrize("family", ["shrink", "shrink-equals"])
def test_a_prompt_too_long_goes_to_no_smaller_window(scene, family, stream):
    at = scene(family).set("status:code=400,error=context_length_exceeded", GOOD)
    got = at.ask(stream=stream)
    got.failed(400, "context_length_exceeded")
    assert at.saw(got) == (1, 0)


@both_kinds
@pytest.mark.parametrize("family", ["pair", "equals"])
@pytest.mark.parametrize("fault", ["status:code=400,error=content_policy_violation", "status:code=422"])
def test_the_callers_own_error_is_passed_on_as_it_is(scene, family, fault, stream):
    at = scene(family).set(fault, GOOD)
    got = at.ask(stream=stream)
    code = 422 if "422" in fault else 400
    word = None if code == 422 else "content_policy_violation"
    got.failed(code, word)
    assert got.error == answers.error(f"upstream says {code}", "invalid_request_error", word)["error"]
    assert at.saw(got) == (1, 0)
    assert got.headers["x-should-retry"] == "false"


@both_kinds
def test_a_fallbacks_refusal_does_not_hide_why_it_was_asked(scene, stream):
    at = scene("pair").set("status:code=500", "status:code=400")
    got = at.ask(stream=stream)
    got.failed(502, "upstream_unavailable")
    assert at.saw(got) == (2, 1)


@both_kinds
def test_when_all_fail_the_client_hears_when_to_come_back(scene, stream):
    at = scene("pair").set("status:code=429,after=900", "status:code=503,after=600")
    got = at.ask(stream=stream)
    got.failed(503, "no_healthy_upstream")
    assert 590 < float(got.headers["retry-after"]) <= 600
    assert at.saw(got) == (1, 1)


@both_kinds
def test_whoever_answers_is_named(scene, bad, good, stream):
    at = scene("named")
    at.model = "named"
    bad.behave("small", "status:code=503")
    good.behave("large", "ok:tokens=60")
    got = at.ask(stream=stream)
    got.is_whole()
    assert (got.headers["x-tidegate-upstream"], got.headers["x-tidegate-model"]) == ("good", "large")
    assert '"model": "large"' in got.body
    assert got.usage == answers.usage(TOKENS)
    assert got.headers["x-tidegate-attempts"] == ("2" if at.bad_saw(got) else "1")


@both_kinds
def test_long_queueing_is_survivable_by_configuration(scene, stream):
    queueing = f"ok:tokens={TOKENS},comments=2.5"
    at = scene("patient").set(queueing, GOOD)
    got = at.ask(stream=stream)
    got.is_whole()
    assert at.saw(got) == (1, 0)
    assert got.seconds > 2.5
    if stream:
        assert len(got.comments) >= got.waited / PING / 2, "the client was left in silence"

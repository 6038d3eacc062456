"""Faults after part of the answer was delivered: it is carried on exactly, or ends with an error."""

import json

import pytest

from tests.chaos.scene import DONE, GOOD, STALL, TOKENS, WHOLE
from tests.kit import answers

LATE = 1.5
BROKEN = {  # fault: how many tokens the client has by then
    "cut:at=40": 40,
    "cut:at=40,how=fin": 40,
    "cut:at=40,how=clean": 40,
    "cut:at=40,how=done": 40,
    "cut:at=1": 1,
    "cut:at=60": 60,
    "cut:at=40,split=7": 40,
    "cut:at=40,crlf=1": 40,
    "stall:at=20": 20,
    "stall:at=20,comments=1": 20,
    "malformed:at=10": 9,
    "malformed:at=10,extra=1": 9,
    "malformed:at=10,what=shape": 9,
    "error_chunk:at=5": 5,
    "error_chunk:at=5,code=503": 5,
    "error_chunk:at=5,code=insufficient_quota": 5,
    f"ok:tokens={TOKENS},finish=insufficient_system_resource": 60,
    f"ok:tokens={TOKENS},finish=abort": 60,
}
HARMLESS = [
    f"ok:tokens={TOKENS},done=0",
    f"ok:tokens={TOKENS},split=1",
    f"ok:tokens={TOKENS},split=5,crlf=1",
    f"ok:tokens={TOKENS},gap=0.02",
    f"wrong_type:tokens={TOKENS}",
    "malformed:at=10,extra=1,what=word",
    "malformed:at=10,extra=1,what=number",
    "malformed:at=10,extra=1,what=null",
    "malformed:at=10,extra=1,what=list",
    "malformed:at=61",
    "malformed:at=61,what=shape",
]


@pytest.mark.parametrize("fault", BROKEN)
def test_it_is_continued_from_where_it_broke(scene, fault):
    at = scene("pair").set(fault, GOOD)
    got = at.ask()
    got.is_whole()
    assert at.saw(got) == (1, 1)
    (continued,) = at.good_saw(got)
    beginning = json.loads(continued["raw"])["messages"][-1]
    assert beginning == {"role": "assistant", "content": answers.text(BROKEN[fault]).rstrip()}
    assert got.waited < (STALL if "stall" in fault else 0) + LATE
    whole = answers.usage(TOKENS)
    assert got.usage["total_tokens"] == whole["total_tokens"]
    # A prefill that ends in the middle of a token makes one token two.
    assert got.usage["completion_tokens"] in {TOKENS, TOKENS + 1}


@pytest.mark.parametrize("fault", BROKEN)
def test_it_is_made_again_where_nobody_continues(scene, fault):
    at = scene("repeat").set(fault, GOOD)
    got = at.ask()
    got.is_whole()
    assert at.saw(got) == (1, 1)
    (again,) = at.good_saw(got)
    assert json.loads(again["raw"])["messages"][-1]["role"] == "user"
    assert got.usage == answers.usage(TOKENS)


@pytest.mark.parametrize("fault", BROKEN)
def test_turned_off_it_ends_with_an_error_and_no_done(scene, fault):
    at = scene("honest").set(fault, GOOD)
    got = at.ask()
    got.broke(answers.text(BROKEN[fault]))
    assert at.saw(got) == (1, 0)


@pytest.mark.parametrize("fault", HARMLESS)
def test_what_loses_nothing_breaks_nothing(scene, fault):
    at = scene("alone").set(fault)
    got = at.ask()
    got.is_whole()
    assert at.saw(got) == (1, 0)
    assert got.usage == answers.usage(TOKENS)


@pytest.mark.parametrize("fault", ["cut:at=40", "stall:at=20", "malformed:at=10", "error_chunk:at=5"])
def test_without_a_fallback_it_is_carried_on_where_it_broke(scene, fault):
    at = scene("alone").set(f"{fault},times=1,tokens={TOKENS}")
    got = at.ask()
    got.is_whole()
    assert at.saw(got) == (2, 0)


def test_an_upstream_that_breaks_every_stream_is_not_asked_for_ever(scene):
    at = scene("alone").set(f"cut:at=10,tokens={TOKENS}")
    got = at.ask()
    got.broke(got.text)
    assert WHOLE.startswith(got.text)
    assert len(answers.text(20)) < len(got.text) <= len(answers.text(30))
    assert at.saw(got) == (3, 0)


@pytest.mark.parametrize("refusal", ["status:code=400", "status:code=500", "silence", "blank"])
def test_when_nobody_can_carry_it_on_the_break_is_told(scene, refusal):
    at = scene("pair").set("cut:at=40", refusal)
    at.set(bad=f"cut:at=40,times=1,tokens={TOKENS}")
    got = at.ask()
    if got.messages[-1] == DONE:  # by the one that broke, and works again
        got.is_whole()
    else:
        got.broke(answers.text(40))
    assert at.bad_saw(got)
    assert at.good_saw(got)


def test_another_text_is_never_spliced_on(scene):
    at = scene("repeat").set("cut:at=40", "ok:tokens=30")
    got = at.ask()
    got.broke(answers.text(40))
    assert at.saw(got)[1] == 1


@pytest.mark.parametrize("body", [{"n": 2}, {"logprobs": True}])
def test_what_cannot_be_cut_ends_with_an_error(scene, body):
    at = scene("pair").set("cut:at=40", GOOD)
    got = at.ask(**body)
    got.broke(answers.text(40))
    assert at.saw(got) == (1, 0)


@pytest.mark.parametrize("family", ["pair", "honest"])
@pytest.mark.parametrize("how", ["rst", "fin"])
def test_one_finished_choice_of_two_is_no_whole_answer(scene, family, how):
    at = scene(family).set(f"uneven:how={how}", GOOD)
    got = at.ask(n=2)
    got.broke(answers.text(12))
    assert at.saw(got) == (1, 0)


def test_a_json_answer_is_made_again_and_not_continued(scene):
    at = scene("pair").set("cut:at=40", GOOD)
    got = at.ask(response_format={"type": "json_object"})
    got.is_whole()
    (again,) = at.good_saw(got)
    assert json.loads(again["raw"])["messages"][-1]["role"] == "user"


def test_a_rescue_is_rescued_too(scene):
    breaks_once = f"cut:at=20,times=1,tokens={TOKENS}"
    at = scene("pair").set(breaks_once, breaks_once)
    got = at.ask()
    got.is_whole()
    assert sum(at.saw(got)) == 3


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "unary"])
@pytest.mark.parametrize("reason", ["insufficient_system_resource", "abort", "error"])
def test_an_answer_that_its_upstream_gave_up_is_none(scene, reason, stream):
    at = scene("pair").set(f"ok:tokens={TOKENS},finish={reason}", GOOD)
    got = at.ask(stream=stream)
    got.is_whole()
    assert at.saw(got)[1] == 1

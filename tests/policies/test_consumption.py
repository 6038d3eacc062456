import pytest

from policies.consumption import consumption
from policies.errors import NoHealthyUpstream, StreamInterrupted
from policies.service import CANCELLED, LOST, PENDING, Attempt, CacheState, CacheStatus, Reply, Usage
from tests.kit.upstream import make_call

ESTIMATE = Usage(input=10, output=100)
TOLD = Usage(input=3, output=2, cached_input=1)


def used(reply, failure=None, *, characters=0, attempts=(CANCELLED,)):
    call = make_call(attempts=[Attempt("up", "m", outcome) for outcome in attempts])
    return consumption(call, reply, failure, characters=characters, estimate=lambda _: ESTIMATE)


def reply(**facts):
    return Reply("up", "m", **{"stream": True, **facts})


@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_s_own_count_is_taken_as_it_is(stream):
    assert used(reply(stream=stream, usage=TOLD), characters=999) == (TOLD, False)


def test_what_was_delivered_is_counted_where_nobody_told():
    assert used(reply(), characters=41) == (Usage(10, 11), True)
    assert used(reply(), StreamInterrupted("cut"), characters=8) == (Usage(10, 2), True)


def test_a_whole_answer_without_a_count_is_the_estimate():
    assert used(reply(stream=False, complete=True)) == (ESTIMATE, True)


def test_who_leaves_before_the_first_content_used_the_prompt_if_it_was_sent():
    assert used(None) == (Usage(input=10), True)
    assert used(None, attempts=["UpstreamBusy", CANCELLED, LOST]) == (Usage(input=10), True)


@pytest.mark.parametrize("attempts", [(), ("UpstreamBusy",), (PENDING,), (LOST, PENDING)])
def test_who_leaves_before_anything_was_sent_or_while_it_goes_on_for_others_used_nothing(attempts):
    assert used(None, attempts=attempts) == (Usage(), False)


def test_what_nobody_answered_is_nothing():
    assert used(None, NoHealthyUpstream("all out")) == (Usage(), False)


@pytest.mark.parametrize("state", CacheState)
def test_what_the_cache_had_is_nothing(state):
    cached = CacheStatus(state)
    assert used(reply(cached=cached, usage=TOLD)) == ((Usage(), False) if cached.served else (TOLD, False))

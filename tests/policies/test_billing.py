import pytest

from policies.billing import billed_attempts
from policies.service import Attempt

BILLS = {"thrifty": False, "strict": True}


def billed(**facts):
    attempt = Attempt(model="m", **facts)
    return bool(billed_attempts([attempt], BILLS.__getitem__))


def test_an_answer_is_billed_and_a_failure_is_not():
    assert billed(upstream="thrifty", outcome="ok", first_event=1.0)
    assert not billed(upstream="strict", outcome="UpstreamBusy")
    assert not billed(upstream="strict", outcome="StreamInterrupted", first_event=1.0)
    assert not billed(upstream="strict")


@pytest.mark.parametrize("first_event", [None, 1.0])
def test_the_loser_of_a_hedge_is_billed_where_its_provider_bills_it(first_event):
    assert billed(upstream="strict", outcome="lost", first_event=first_event)
    assert not billed(upstream="thrifty", outcome="lost", first_event=first_event)


def test_a_client_that_leaves_is_billed_for_what_it_got():
    assert billed(upstream="thrifty", outcome="cancelled", first_event=1.0)
    assert not billed(upstream="thrifty", outcome="cancelled")
    assert billed(upstream="strict", outcome="cancelled")

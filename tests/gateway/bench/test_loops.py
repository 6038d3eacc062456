"""The loops in virtual time, against a server that is deaf for a while."""

import asyncio
from itertools import pairwise, repeat, takewhile
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bench.arrivals import poisson, within
from gateway.bench.loops import closed_loop, open_loop
from gateway.bench.measure import summarize
from gateway.bench.prompts import Lengths, Prompt, prompts
from gateway.bench.sample import Sample
from tests.kit.virtual_time import LoopClock, run_virtual

CLOCK = LoopClock()
DEAF = (10.0, 20.0)
"""The server answers in 10 ms, but says nothing in these ten seconds."""


async def ask(_, due):
    sent = CLOCK.now()
    if DEAF[0] <= sent < DEAF[1]:
        await CLOCK.sleep(DEAF[1] - sent)
    await CLOCK.sleep(0.01)
    now = CLOCK.now()
    return Sample(due=due, sent=sent, first=now, last=now, ended=now, output_tokens=1, status=200)


def questions():
    return repeat(Prompt("?", 1))


def loaded(loop, *arguments, **bounds):
    seen = []
    run_virtual(loop(ask, questions(), *arguments, CLOCK, seen.append, **bounds))
    return seen


def test_an_open_loop_counts_everybody_who_came_while_the_server_was_deaf():
    arrivals = [number / 10 for number in range(300)]
    seen = loaded(open_loop, arrivals)
    found = summarize(seen, 30.0, None)
    assert found.answered == 300
    assert sum(sample.total > 0.02 for sample in seen) == 100
    assert found.total.percentiles[90] == pytest.approx(7.0, abs=0.2)  # the truth for 300 users
    assert found.late.most == pytest.approx(0.0)


def test_a_closed_loop_leaves_them_out():
    seen = loaded(closed_loop, concurrency=1, requests=None, duration=30.0)
    found = summarize(seen, 30.0, None)
    assert found.total.percentiles[99] == pytest.approx(0.01)  # the same server, seen with one eye shut
    assert found.total.most == pytest.approx(10.0, abs=0.02)


def test_a_closed_loop_never_has_more_under_way_than_it_may():
    running = most = 0

    async def counted(prompt, due):
        nonlocal running, most
        running += 1
        most = max(most, running)
        sample = await ask(prompt, due)
        running -= 1
        return sample

    seen = []
    run_virtual(
        closed_loop(counted, questions(), CLOCK, seen.append, concurrency=7, requests=50, duration=None)
    )
    assert (most, len(seen)) == (7, 50)


@pytest.mark.parametrize(("requests", "duration", "sent"), [(5, None, 5), (3, 60.0, 3), (None, 0.035, 4)])
def test_a_closed_loop_ends_at_its_bound(requests, duration, sent):
    assert len(loaded(closed_loop, concurrency=1, requests=requests, duration=duration)) == sent


def test_one_late_turn_of_the_loop_is_charged_to_the_server_side():
    async def busy():
        seen = []
        loop = asyncio.get_running_loop()
        loop._jumping.elapsed += 0  # starts at 0
        loop.call_at(1.0, lambda: setattr(loop._jumping, "elapsed", loop._jumping.elapsed + 3.0))
        await open_loop(ask, questions(), [0.5, 2.0], CLOCK, seen.append)
        return seen

    first, second = run_virtual(busy())
    assert (first.late, second.late) == (pytest.approx(0.0), pytest.approx(2.0))
    assert second.total == pytest.approx(2.01)


@given(st.floats(min_value=0.1, max_value=1000), st.integers())
def test_arrivals_go_forward_and_repeat_with_their_seed(rate, seed):
    some = list(within(poisson(rate, Random(seed)), None, 50))
    assert some == list(within(poisson(rate, Random(seed)), None, 50))
    assert all(earlier < later for earlier, later in pairwise([0.0, *some]))
    assert list(within(poisson(rate, Random(seed)), some[20], None)) == some[:20]


def test_arrivals_are_a_poisson_process():
    count = 20_000
    times = list(within(poisson(50.0, Random(7)), None, count))
    assert count / times[-1] == pytest.approx(50.0, rel=0.03)
    per_second = [0] * int(times[-1])
    for at in takewhile(lambda at: at < len(per_second), times):
        per_second[int(at)] += 1
    mean = sum(per_second) / len(per_second)
    variance = sum((each - mean) ** 2 for each in per_second) / len(per_second)
    assert variance / mean == pytest.approx(1.0, abs=0.2)  # of even gaps it would be near 0


@given(st.integers(1, 500), st.integers(0, 500), st.integers())
def test_questions_have_their_length_and_differ(least, more, seed):
    lengths = Lengths(least, least + more)
    assert Lengths.parse(str(lengths)) == lengths
    asked = prompts(lengths, lengths, Random(seed))
    some = [next(asked) for _ in range(20)]
    assert len({prompt.text for prompt in some}) == 20
    for prompt in some:
        assert lengths.least <= prompt.output_tokens <= lengths.most
        assert max(1, lengths.least - 3) <= len(prompt.text.split()) <= max(1, lengths.most - 3)


@pytest.mark.parametrize("text", ["", "0", "-5", "9-3", "12-", "x", "3-4-5", "1.5"])
def test_lengths_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match=r"tokens|at least 1"):
        Lengths.parse(text)

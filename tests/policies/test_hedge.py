import asyncio
import random
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.budget import BudgetOptions, RetryBudget
from policies.errors import (
    InvalidRequest,
    NoHealthyUpstream,
    StreamInterrupted,
    UpstreamBusy,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from policies.facts import Hedged, HedgeFinished
from policies.hedge import FirstEvents, Hedge, HedgeOptions
from policies.observe import ObserveAttempts
from tests.kit.upstream import RecordingMeter, ScriptedUpstream, Wait, make_call
from tests.kit.virtual_time import LoopClock, run_virtual

DOWN = UpstreamUnavailable("down")
AMPLE = BudgetOptions(ratio=1, per_second=100)


# The delay


def test_too_little_is_known_at_first():
    times = FirstEvents(HedgeOptions(enough=3))
    times.record(1)
    times.record(2)
    assert times.delay() is None
    times.record(3)
    assert times.delay() == 3


def test_a_fixed_delay_needs_no_knowledge():
    assert FirstEvents(HedgeOptions(after=0.7)).delay() == 0.7


@given(times=st.lists(st.floats(0, 100), min_size=20, max_size=120))
def test_the_delay_is_the_quantile_of_the_last_window(times):
    state = FirstEvents(HedgeOptions(window=50))
    for seconds in times:
        state.record(seconds)
    recent = sorted(times[-50:])
    delay = state.delay()
    assert delay in recent
    assert sum(seconds > delay for seconds in recent) <= 0.05 * len(recent)
    assert sum(seconds >= delay for seconds in recent) >= 0.05 * len(recent)


@pytest.mark.parametrize(
    "options", [{"after": -1}, {"quantile": 1}, {"quantile": 0}, {"enough": 0}, {"enough": 9, "window": 8}]
)
def test_options_are_checked(options):
    with pytest.raises(ValueError, match="hedg"):
        HedgeOptions(**options)


# The race


class InTurn:
    """The n-th opening goes to the n-th upstream; records what each of them saw at its end."""

    def __init__(self, *upstreams):
        self.upstreams = upstreams
        self.opened = 0
        self.ends = {}
        self.tasks = {}

    @asynccontextmanager
    async def __call__(self, call):
        index = min(self.opened, len(self.upstreams) - 1)
        self.opened += 1
        task = asyncio.current_task()
        error = None
        try:
            async with self.upstreams[index](call) as reply:
                yield reply
        except BaseException as exc:
            error = exc
            raise
        finally:
            self.ends[index] = error
            assert asyncio.current_task() is task, "left in another task than entered"

    @property
    def active(self):
        return [upstream.active for upstream in self.upstreams]


def hedging(*scripts, budget=AMPLE, worthwhile=lambda call: True, after=1.0, **options):
    meter = RecordingMeter()
    inner = InTurn(*[ScriptedUpstream([script], name="ab"[k]) for k, script in enumerate(scripts)])
    service = Hedge(
        inner,
        HedgeOptions(after=after, tiers=frozenset({"pro"}), **options),
        budget=RetryBudget(budget),
        worthwhile=worthwhile,
        clock=LoopClock(),
        meter=meter,
    )
    return service, inner, meter


def pro(**facts):
    return make_call(tier="pro", **facts)


async def read(service, call):
    async with service(call) as reply:
        opened = asyncio.get_running_loop().time()
        text = "".join([event.text async for event in reply.events])
    return text, opened, reply


def told(meter):
    return [fact.outcome for fact in meter.of(HedgeFinished)]


def test_an_answer_in_time_is_not_hedged():
    service, inner, meter = hedging([Wait(0.9), "a", Wait(5), "b"], ["x"])
    text, opened, _ = run_virtual(read(service, pro()))
    assert (text, opened, inner.opened) == ("ab", 0.9, 1)
    assert meter.facts == []
    assert inner.ends == {0: None}


def test_a_late_first_event_loses_to_the_hedge():
    service, inner, meter = hedging([Wait(60), "a"], [Wait(0.5), "x", Wait(1), "y"])

    async def run():
        async with service(pro()) as reply:
            assert asyncio.get_running_loop().time() == 1.5
            assert inner.active == [0, 1], "the loser is closed at once"
            text = "".join([event.text async for event in reply.events])
            assert (reply.upstream, reply.complete, reply.usage.output) == ("b", True, 2)
        assert inner.active == [0, 0]
        return text

    assert run_virtual(run()) == "xy"
    assert isinstance(inner.ends[0], asyncio.CancelledError)
    assert inner.ends[1] is None
    assert told(meter) == ["won"]
    assert meter.of(Hedged)[0].after == 1


def test_a_hedge_that_comes_second_is_closed_at_once():
    service, inner, meter = hedging([Wait(1.2), "a", Wait(9), "b"], [Wait(0.5), "x"])

    async def run():
        async with service(pro()) as reply:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert asyncio.get_running_loop().time() == 1.2
            assert inner.active == [1, 0]
            return "".join([event.text async for event in reply.events])

    assert run_virtual(run()) == "ab"
    assert isinstance(inner.ends[1], asyncio.CancelledError)
    assert told(meter) == ["lost"]


@pytest.mark.parametrize("first", [1.4999, 1.5, 1.5001])
def test_a_tie_has_one_winner(first):
    service, inner, meter = hedging([Wait(first), "a"], [Wait(0.5), "x"])
    text, _, reply = run_virtual(read(service, pro()))
    assert (text, reply.upstream) in [("a", "a"), ("x", "b")]
    assert inner.active == [0, 0]
    assert len(told(meter)) == 1


def outcomes(*scripts, leave_after=None):
    """What the call's history says of an attempt at each upstream, in the order of their openings."""
    service, inner, meter = hedging(*scripts)
    inner.upstreams = [
        ObserveAttempts(upstream, upstream=upstream.name, model="m", clock=LoopClock(), meter=meter)
        for upstream in inner.upstreams
    ]
    call = pro()

    async def run():
        async with asyncio.timeout(leave_after):
            await read(service, call)

    with suppress(TimeoutError):
        run_virtual(run())
    return [attempt.outcome for attempt in call.attempts]


def test_the_history_tells_the_loser_from_a_client_that_left():
    slow, fast = [Wait(60), "a"], [Wait(0.5), "x", Wait(9), "y"]
    assert outcomes(slow, fast) == ["lost", "ok"]
    assert outcomes([Wait(1.2), "a", Wait(9), "b"], slow) == ["ok", "lost"]
    assert outcomes(slow, fast, leave_after=1.2) == ["cancelled", "cancelled"]
    assert outcomes(slow, fast, leave_after=3) == ["lost", "cancelled"]
    assert outcomes([Wait(1.2), DOWN], fast) == ["UpstreamUnavailable", "ok"]


@pytest.mark.parametrize("first", [1.4999, 1.5, 1.5001])
def test_a_tie_has_one_loser(first):
    assert sorted(outcomes([Wait(first), "a"], [Wait(0.5), "x"])) == ["lost", "ok"]


def test_a_hedge_that_fails_does_not_disturb():
    service, _inner, meter = hedging([Wait(3), "a"], [Wait(0.5), DOWN])
    assert run_virtual(read(service, pro()))[:2] == ("a", 3)
    assert told(meter) == ["UpstreamUnavailable"]


def test_a_first_attempt_that_fails_leaves_it_to_the_hedge():
    service, inner, meter = hedging([Wait(1.2), DOWN], [Wait(5), "x"])
    assert run_virtual(read(service, pro()))[:2] == ("x", 6)
    assert told(meter) == ["won"]
    assert inner.ends[0] is DOWN


def test_when_both_fail_the_first_attempts_failure_is_raised():
    service, _inner, meter = hedging([Wait(1.2), DOWN], [Wait(5), UpstreamTimeout("silent")])
    with pytest.raises(UpstreamUnavailable):
        run_virtual(read(service, pro()))
    assert told(meter) == ["UpstreamTimeout"]
    service, _, _ = hedging([Wait(7), DOWN], [Wait(5), UpstreamTimeout("silent")])
    with pytest.raises(UpstreamUnavailable):
        run_virtual(read(service, pro()))


@pytest.mark.parametrize("error", [DOWN, NoHealthyUpstream("none"), InvalidRequest("mine")])
def test_an_early_failure_is_not_waited_on(error):
    service, inner, meter = hedging([Wait(0.5), error], ["x"])

    async def run():
        with pytest.raises(type(error)):
            await read(service, pro())
        assert asyncio.get_running_loop().time() == 0.5

    run_virtual(run())
    assert inner.opened == 1
    assert meter.facts == []


@pytest.mark.parametrize(
    ("call", "more"),
    [
        (make_call(tier="free"), {}),
        (pro(stream=False), {}),
        (pro(), {"budget": BudgetOptions(ratio=0, per_second=0)}),
        (pro(), {"worthwhile": lambda call: False}),
        (pro(), {"after": None}),
    ],
)
def test_when_there_is_no_hedge(call, more):
    service, inner, meter = hedging([Wait(5), "a"], ["x"], **more)
    assert run_virtual(read(service, call))[0] == "a"
    assert inner.opened == 1
    assert meter.facts == []


def test_the_delay_is_learnt_and_slow_ones_count_with_what_they_took():
    service, _inner, _ = hedging([Wait(60), "a"], ["x"], after=None, enough=5, window=5)
    for seconds in (1, 1, 1, 1, 2):
        service._first_events.record(seconds)
    assert run_virtual(read(service, pro()))[:2] == ("x", 2)
    assert service._first_events.delay() == 2


@pytest.mark.parametrize("first", [Wait(0.1), Wait(60)])
@pytest.mark.parametrize("after", [0.05, 0.5, 1.2, 3, 8])
def test_cancellation_passes_on_and_releases(first, after):
    service, inner, _ = hedging([first, "a", Wait(5), "b"], [Wait(1), "x", Wait(9), "y"])

    async def cancel():
        task = asyncio.create_task(read(service, pro()))
        await asyncio.sleep(after)
        if task.done():
            return
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert inner.active == [0, 0]
        assert all(isinstance(end, asyncio.CancelledError) for end in inner.ends.values())
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(cancel())


@pytest.mark.parametrize("first", [Wait(0.1), Wait(60)])
def test_leaving_early_releases(first):
    service, inner, _ = hedging([first, "a", "b"], ["x", Wait(9), "y"])

    async def leave():
        async with service(pro()) as reply:
            async for _ in reply.events:
                break
        assert inner.active == [0, 0]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(leave())
    assert inner.ends[inner.opened - 1] is None


@pytest.mark.parametrize("first", [Wait(0.1), Wait(60)])
def test_the_consumers_error_reaches_the_winners_layers(first):
    service, inner, _ = hedging([first, "a"], ["x"])
    mine = InvalidRequest("mine")

    async def fail():
        async with service(pro()):
            raise mine

    with pytest.raises(InvalidRequest):
        run_virtual(fail())
    assert inner.ends[inner.opened - 1] is mine
    assert inner.active == [0, 0]


@pytest.mark.parametrize("first", [Wait(0.1), Wait(60)])
def test_a_break_reaches_the_consumer_and_the_winners_layers(first):
    cut = StreamInterrupted("cut")
    service, inner, _ = hedging([first, "a", cut], ["x", cut])
    with pytest.raises(StreamInterrupted) as caught:
        run_virtual(read(service, pro()))
    assert caught.value is cut
    assert inner.ends[inner.opened - 1] is cut


def test_a_timeout_inside_the_winner_reaches_the_consumer():
    class Limited(InTurn):
        @asynccontextmanager
        async def __call__(self, call):
            async with super().__call__(call) as reply:
                try:
                    async with asyncio.timeout(5):
                        yield reply
                except TimeoutError:
                    raise UpstreamBusy("too long") from None

    service, inner, _ = hedging([Wait(60), "a"], ["x", Wait(30), "y"])
    service.inner = limited = Limited(*inner.upstreams)
    with pytest.raises(UpstreamBusy):
        run_virtual(read(service, pro()))
    assert limited.active == [0, 0]


def test_an_error_while_closing_the_winner_is_raised():
    @asynccontextmanager
    async def clumsy(call):
        async with inner(call) as reply:
            yield reply
        raise UpstreamUnavailable("at the end")

    service, inner, _ = hedging([Wait(60), "a"], ["x"])
    service.inner = clumsy
    with pytest.raises(UpstreamUnavailable, match="at the end"):
        run_virtual(read(service, pro()))


STEPS = st.lists(
    st.one_of(
        st.sampled_from(["p", "q"]),
        st.builds(Wait, st.sampled_from([0.25, 0.5, 0.75, 1.0, 2.0])),
        st.just(DOWN),
    ),
    max_size=5,
)


@given(
    first=STEPS, second=STEPS, cancel_at=st.none() | st.sampled_from([0.3, 1.0, 1.5, 2.2]), seed=st.integers()
)
def test_whatever_happens_the_text_is_one_attempts_and_nothing_stays_open(first, second, cancel_at, seed):
    service, inner, _ = hedging(first, second)
    rng = random.Random(seed)
    got = []

    async def consume():
        async with service(pro()) as reply:
            async for event in reply.events:
                got.append(event.text)
                await asyncio.sleep(rng.choice([0, 0.25]))

    async def run():
        task = asyncio.create_task(consume())
        if cancel_at is not None:
            await asyncio.sleep(cancel_at)
            task.cancel()
        try:
            await task
        except (UpstreamUnavailable, asyncio.CancelledError):
            pass
        else:
            assert "".join(got) in (whole(first), whole(second))
        assert inner.active == [0, 0]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(run())
    text = "".join(got)
    assert whole(first).startswith(text) or whole(second).startswith(text)


def whole(steps):
    return "".join(step for step in steps if isinstance(step, str))

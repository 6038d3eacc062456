import asyncio
from contextlib import asynccontextmanager
from math import inf
from random import Random

import pytest

from policies.admission import Admission
from policies.errors import Overloaded, UpstreamUnavailable
from policies.facts import CallAdmitted, CallShed
from policies.fairqueue import AdmissionOptions
from policies.seating import Seating
from policies.service import Usage
from policies.tiers import TierOptions
from tests.kit.estimates import FixedEstimates
from tests.kit.upstream import RecordingMeter, ScriptedUpstream, Wait, make_call, read_text
from tests.kit.virtual_time import LoopClock, run_virtual


class FixedSeats:
    """So many seats, taken by who is at the upstream."""

    def __init__(self, upstream, count):
        self.upstream, self.count, self.whole, self.ready = upstream, count, None, inf
        self.listeners = []

    def free(self, now):
        return self.count - self.upstream.active if now >= self.ready or self.ready == inf else 0

    def limit(self, _):
        return self.count if self.whole is None else self.whole

    def ready_at(self, now):
        return self.ready if self.ready > now else inf

    def opens_at(self, now):
        return now if self.ready == inf else max(now, self.ready)

    def watch(self, listener):
        self.listeners.append(listener)

    def unwatch(self, listener):
        self.listeners.remove(listener)


ANSWER = (Wait(1), "a", Wait(9), "b")


def scene(script=ANSWER, seats=1, **options):
    upstream = ScriptedUpstream([list(script)])
    held = FixedSeats(upstream, seats)
    meter = RecordingMeter()
    seating = Seating(AdmissionOptions(**options), seats=held, clock=LoopClock(), rng=Random(3), meter=meter)
    return Admission(upstream, seating, estimates=FixedEstimates()), upstream, held, meter


def spawn(service, **facts):
    return asyncio.create_task(read_text(service, make_call(**facts)))


def test_a_call_with_a_free_seat_waits_for_nothing():
    admission, upstream, held, meter = scene()
    call = make_call()
    assert run_virtual(read_text(admission, call)) == "ab"
    assert (call.queued, meter.facts, held.listeners, upstream.active) == (0, [], [], 0)
    assert admission._seating.queue.tiers["default"].running == 0


def test_calls_wait_in_turn_and_say_for_how_long():
    async def run():
        admission, upstream, held, meter = scene()
        calls = [make_call(id=str(number)) for number in range(3)]
        await asyncio.gather(*(read_text(admission, call) for call in calls))
        assert upstream.opened == [0, 10, 20]
        assert [call.queued for call in calls] == [0, 10, 20]
        assert [fact.waited for fact in meter.of(CallAdmitted)] == [10, 20]
        assert (upstream.most_active, held.listeners) == (1, [])

    run_virtual(run())


def test_a_limit_that_grows_lets_in_who_waits():
    async def run():
        admission, upstream, held, _ = scene()
        tasks = [spawn(admission) for _ in range(3)]
        await asyncio.sleep(2)
        held.count = 3
        (listener,) = held.listeners
        listener()
        await asyncio.gather(*tasks)
        assert upstream.opened == [0, 2, 2]

    run_virtual(run())


def test_the_end_of_a_hold_off_is_looked_for():
    async def run():
        admission, upstream, held, _ = scene(seats=2)
        held.ready = 7.0
        await asyncio.gather(spawn(admission), spawn(admission))
        assert upstream.opened == [7, 7]

    run_virtual(run())


def test_an_outage_is_no_overload():
    async def run():
        admission, upstream, _, _ = scene([UpstreamUnavailable("down")], seats=0)
        for _ in range(3):
            with pytest.raises(UpstreamUnavailable):
                await read_text(admission, make_call())
        assert len(upstream.opened) == 3
        assert admission._seating.queue.tiers["default"].counters.read("") == 0

    run_virtual(run())


def test_who_waits_when_all_upstreams_go_out_is_let_through():
    async def run():
        admission, upstream, held, _ = scene()
        tasks = [spawn(admission) for _ in range(3)]
        await asyncio.sleep(1)
        held.whole = 0
        await asyncio.gather(*tasks)
        assert upstream.opened == [0, 10, 10]

    run_virtual(run())


def test_max_wait_ends_in_overloaded_with_a_time_to_come_back():
    async def run():
        admission, _, held, meter = scene(tiers={"free": TierOptions(max_wait=4)})
        first = spawn(admission)
        await asyncio.sleep(0)
        call = make_call(tier="free")
        with pytest.raises(Overloaded, match="Try again in") as caught:
            await read_text(admission, call)
        assert caught.value.retry_after >= 1
        assert caught.value.retryable
        assert (call.queued, meter.of(CallShed)[0].reason) == (4, "max_wait")
        assert held.listeners == []
        await first

    run_virtual(run())


def test_a_tier_that_never_queues_is_refused_at_once():
    async def run():
        admission, *_ = scene(tiers={"free": TierOptions(max_wait=0)})
        first = spawn(admission)
        await asyncio.sleep(0)
        call = make_call(tier="free")
        with pytest.raises(Overloaded):
            await read_text(admission, call)
        assert call.queued == 0
        await first

    run_virtual(run())


def test_who_comes_back_when_told_goes_first():
    async def run():
        tiers = {"free": TierOptions(max_wait=30)}
        admission, upstream, _, _ = scene(tiers=tiers, max_waiting=2)
        body = {"messages": "sent away"}
        await spawn(admission, tier="free", id="first")  # which tells how long calls last
        tasks = [spawn(admission, tier="free", id=str(number)) for number in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as caught:
            await read_text(admission, make_call(tier="free", body=body))
        assert caught.value.retry_after <= 30
        await asyncio.sleep(10.5)
        tasks.append(spawn(admission, tier="free", id="late"))
        await asyncio.sleep(caught.value.retry_after - 10.5)
        back = make_call(tier="free", body=body, id="back")
        tasks.append(asyncio.create_task(read_text(admission, back)))
        await asyncio.gather(*tasks, return_exceptions=True)
        order = [call.id for call in upstream.calls]
        assert "back" in order
        assert "late" not in order[: order.index("back")]

    run_virtual(run())


def test_a_full_queue_sheds_the_lowest_tier_first():
    async def run():
        tiers = {"pro": TierOptions(weight=4), "free": TierOptions(weight=1)}
        admission, upstream, _, meter = scene(tiers=tiers, max_waiting=2)
        tasks = [spawn(admission, tier="free", id=str(number)) for number in range(3)]
        await asyncio.sleep(0)
        tasks.append(spawn(admission, tier="pro", id="pro"))
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [str, str, Overloaded, str]
        assert [(fact.call.id, fact.reason) for fact in meter.of(CallShed)] == [("2", "tier")]
        assert [call.id for call in upstream.calls] == ["0", "pro", "1"]

    run_virtual(run())


def test_a_call_that_would_miss_its_deadline_gets_no_seat():
    async def run():
        admission, upstream, _, meter = scene()
        await read_text(admission, make_call())  # the first token takes a second
        tasks = [
            spawn(admission),
            spawn(admission, deadline=20.5, id="hopeless"),
            spawn(admission, id="in time"),
        ]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [str, Overloaded, str]
        assert meter.of(CallShed)[0].reason == "deadline"
        assert upstream.opened == [0, 10, 20]

    run_virtual(run())


def test_a_tenant_pays_what_it_used():
    async def run():
        admission, *_ = scene(["a"])
        admission._estimates = FixedEstimates(lambda _: Usage(input=100, output=100))
        await read_text(admission, make_call(tenant="t"))
        return admission._seating.queue.tiers["default"].counters.read("t")

    assert run_virtual(run()) == 3 + 2 * 2


@pytest.mark.parametrize("order", ["cancel first", "seat first"])
def test_a_seat_given_to_who_just_left_goes_to_the_next(order):
    async def run():
        admission, upstream, held, _ = scene()
        tasks = [spawn(admission, id=str(number)) for number in range(3)]
        await asyncio.sleep(1)
        held.count = 2
        if order == "cancel first":
            tasks[1].cancel()
            held.listeners[0]()
        else:
            held.listeners[0]()
            tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert tasks[1].cancelled()
        assert [call.id for call in upstream.calls] == ["0", "2"]
        assert upstream.opened == [0, 1]
        assert (admission._seating._entering, admission._seating._turns, held.listeners) == (0, {}, [])
        assert admission._seating.queue.tiers["default"].running == 0

    run_virtual(run())


def test_a_woken_call_that_waits_again_below_does_not_hold_the_others():
    """Between admission and the upstream other layers may wait: the seat isn't counted twice."""

    async def run():
        admission, upstream, _, _ = scene(seats=2)
        inner = admission._inner

        @asynccontextmanager
        async def slow(call):
            await asyncio.sleep(0.1)
            async with inner(call) as reply:
                yield reply

        admission._inner = slow
        tasks = [spawn(admission) for _ in range(5)]
        await asyncio.gather(*tasks)
        assert (upstream.active, admission._seating._entering) == (0, 0)

    run_virtual(run())


@pytest.mark.parametrize("facts", [{"tier": "free"}, {"deadline": 6.0}])
def test_who_cannot_wait_for_the_end_of_a_hold_off_is_told_its_end_at_once(facts):
    async def run():
        admission, upstream, held, meter = scene(tiers={"free": TierOptions(max_wait=5)})
        held.ready = 7.0
        call = make_call(**facts)
        with pytest.raises(Overloaded) as caught:
            await read_text(admission, call)
        assert (call.queued, upstream.opened, meter.of(CallShed)[0].reason) == (0, [], "late")
        assert caught.value.retry_after >= 7

    run_virtual(run())


def test_what_a_call_took_is_learnt():
    admission, *_ = scene()
    run_virtual(read_text(admission, make_call()))
    assert admission._estimates.learnt == [Usage(input=3, output=2)]


def test_routes_to_the_same_upstreams_wait_in_one_queue():
    async def run():
        admission, upstream, _, _ = scene(tiers={"pro": TierOptions(share=3), "free": TierOptions(share=1)})
        other = Admission(upstream, admission._seating, estimates=FixedEstimates())
        tasks = [spawn(admission, id="first"), *(spawn(admission, tier="free", id=name) for name in "ab")]
        await asyncio.sleep(0)
        tasks.append(spawn(other, tier="pro", id="pro"))
        await asyncio.gather(*tasks)
        assert [call.id for call in upstream.calls] == ["first", "pro", "a", "b"]

    run_virtual(run())


def test_new_rules_reach_who_waits():
    async def run():
        admission, upstream, _, meter = scene(
            tiers={"pro": TierOptions(share=3), "free": TierOptions(share=1)}
        )
        tasks = [spawn(admission, id="first")]
        tasks += [spawn(admission, tier=tier, id=tier) for tier in ("pro", "free")]
        await asyncio.sleep(1)
        admission._seating.rule({"pro": TierOptions(share=0), "free": TierOptions(share=9)})
        await asyncio.gather(*tasks)
        assert [call.id for call in upstream.calls] == ["first", "free", "pro"]
        assert [fact.tier for fact in meter.of(CallAdmitted)] == ["free", "pro"]

    run_virtual(run())

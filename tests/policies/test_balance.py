import asyncio
import random
from collections import Counter

import pytest

from policies.balance import Balance, BalanceOptions, Group
from policies.breaker import Breaker
from policies.errors import (
    NoHealthyUpstream,
    UpstreamBusy,
    UpstreamKeyRejected,
    UpstreamRejected,
    UpstreamUnavailable,
)
from policies.facts import BalancePanicked
from policies.health import Health, HealthOptions, HealthState
from policies.member import Member
from policies.service import Attempt
from tests.kit.upstream import RecordingMeter, ScriptedUpstream, Wait, make_call, read_text
from tests.kit.virtual_time import LoopClock, run_virtual

BROKEN = UpstreamUnavailable("reset")


class Limit:
    """A gate that is shut until it is told otherwise."""

    def __init__(self, shut=True, wait=3.0):
        self.shut = shut
        self._wait = wait

    def available(self, now):
        return not self.shut

    def wait(self, now):
        return self._wait

    def worth_waiting(self, now, patience):
        return self._wait < patience


def make_group(*members, strategy="latency", **options):
    meter = RecordingMeter()
    group = Group(
        members, options=BalanceOptions(strategy=strategy, **options), rng=random.Random(1), meter=meter
    )
    return group, meter


def plain(name, script=(("x",),), **facts):
    return Member(name, ScriptedUpstream([list(part) for part in script], name=name), **facts)


def guarded(name, script=(("x",),), **facts):
    """A member behind its own breaker."""
    health = Health(name, options=HealthOptions(), rng=random.Random(1), meter=RecordingMeter())
    upstream = ScriptedUpstream([list(part) for part in script], name=name)
    return Member(name, Breaker(upstream, health=health, clock=LoopClock()), health=health, **facts)


def eject(member, now=0.0):
    for _ in range(5):
        member.health.settle(member.health.admit(now), now, BROKEN, None)


def tried(*names):
    return make_call(attempts=[Attempt(name, "m", "UpstreamUnavailable") for name in names])


@pytest.mark.parametrize("wrong", [{"penalty": -1}, {"gamma": -1}, {"bound": 1}])
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BalanceOptions(**wrong)


def test_a_group_and_its_members_must_make_sense():
    with pytest.raises(ValueError, match="at least one"):
        make_group()
    with pytest.raises(ValueError, match="weight"):
        plain("a", weight=0)


def test_an_upstream_that_was_tried_isnt_picked_while_another_is_there():
    group, _ = make_group(*(plain(name) for name in "abc"))
    for _ in range(50):
        assert group.pick(tried("a", "b"), 0).name == "c"
    assert group.another(tried("a", "b"), 0)
    assert not group.another(tried("a", "b", "c"), 0)
    assert group.pick(tried("a", "b", "c"), 0).name in "abc"


def test_the_same_account_with_another_model_wasnt_tried():
    group, _ = make_group(plain("a", model="small"), plain("b", model="m"))
    assert group.pick(tried("a", "b"), 0).name == "a"


@pytest.mark.parametrize(
    "strategy", ["latency", "weighted", "least-busy", "cheapest", "priority", "affinity"]
)
def test_no_strategy_picks_what_is_out_or_full(strategy):
    members = [guarded("out"), plain("full", limits=(Limit(),)), plain("good", cost=9, priority=9)]
    eject(members[0])
    group, _ = make_group(*members, strategy=strategy)
    assert {group.pick(make_call(), 1).name for _ in range(30)} == {"good"}


def test_accounts_that_share_a_quota_are_full_together():
    shared = Limit(shut=False)
    members = [plain("a", limits=(shared,)), plain("b", limits=(shared,)), plain("c")]
    group, _ = make_group(*members, strategy="least-busy")
    assert {group.pick(make_call(), 0).name for _ in range(50)} == {"a", "b", "c"}
    shared.shut = True
    assert {group.pick(make_call(), 0).name for _ in range(50)} == {"c"}


def test_nobody_available_says_when():
    blocked = guarded("blocked")
    refusal = UpstreamKeyRejected("no")
    blocked.health.settle(blocked.health.admit(0), 0, refusal, None)
    group, meter = make_group(blocked, plain("full", limits=(Limit(wait=7),)))
    with pytest.raises(NoHealthyUpstream) as refused:
        group.pick(make_call(), 0)
    assert refused.value.retry_after == 7
    assert not meter.of(BalancePanicked)


def test_nobody_will_ever_be_available():
    drained = guarded("a")
    drained.health.drain(0)
    group, _ = make_group(drained)
    with pytest.raises(NoHealthyUpstream) as refused:
        group.pick(make_call(), 0)
    assert refused.value.retry_after is None


def test_all_ejected_means_a_probe_now_and_then():
    members = [guarded("a", [[BROKEN]]), guarded("b", [[BROKEN]])]
    for member in members:
        eject(member)
    group, meter = make_group(*members)
    balance = Balance(group, clock=LoopClock())

    async def main():
        errors = Counter()
        for _ in range(80):
            await asyncio.sleep(0.1)
            try:
                await read_text(balance, make_call())
            except (UpstreamUnavailable, NoHealthyUpstream) as error:
                errors[type(error).__name__] += 1
        assert errors == {"UpstreamUnavailable": 8, "NoHealthyUpstream": 72}
        assert len(meter.of(BalancePanicked)) == 8

    run_virtual(main())


def test_a_call_waits_its_turn_where_all_are_full():
    patient = Member("patient", ScriptedUpstream([["a"]]), limits=(Limit(wait=3),), patience=5)
    hasty = Member("hasty", ScriptedUpstream([["a"]]), limits=(Limit(wait=3),), patience=1)
    assert make_group(hasty, patient)[0].pick(make_call(), 0.0) is patient
    with pytest.raises(NoHealthyUpstream):
        make_group(hasty)[0].pick(make_call(), 0.0)


def test_no_panic_while_somebody_is_only_full():
    member = guarded("a")
    eject(member)
    group, _ = make_group(member, plain("full", limits=(Limit(),)))
    with pytest.raises(NoHealthyUpstream):
        group.pick(make_call(), 0)


def test_a_trial_goes_to_a_call_that_hasnt_suffered_yet():
    member = guarded("ill")
    eject(member)
    group, _ = make_group(member, plain("a"), plain("b"), strategy="priority")
    assert {group.pick(tried("a"), 20).name for _ in range(20)} == {"b"}
    assert group.pick(tried("a", "b"), 20).name == "ill"
    assert group.pick(make_call(), 20).name == "ill"


# The layer


def test_it_is_transparent_on_success_and_counts_what_is_in_flight():
    member = plain("a", [[Wait(2), "a", Wait(3), "b"]])
    balance = Balance(make_group(member)[0], clock=LoopClock())

    async def main():
        task = asyncio.create_task(read_text(balance, make_call()))
        await asyncio.sleep(1)
        assert (member.inflight, len(member.opening)) == (1, 1)
        await asyncio.sleep(2)
        assert (member.inflight, len(member.opening)) == (1, 0)
        assert await task == "ab"
        assert member.latency.read(2) == 2

    run_virtual(main())
    assert member.inflight == 0


def test_cancelling_and_leaving_early_release():
    member = plain("a", [[Wait(5), "a", Wait(5), "b"]])
    balance = Balance(make_group(member)[0], clock=LoopClock())

    async def main():
        for when in (1, 7):
            task = asyncio.create_task(read_text(balance, make_call()))
            await asyncio.sleep(when)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (member.inflight, member.opening, member.service.active) == (0, {}, 0)
        async with balance(make_call()):
            assert member.inflight == 1
        assert (member.inflight, member.service.active) == (0, 0)

    run_virtual(main())


def test_it_never_reopens_after_the_yield():
    members = [plain(name, [["a", BROKEN]]) for name in "ab"]
    balance = Balance(make_group(*members)[0], clock=LoopClock())
    with pytest.raises(UpstreamUnavailable):
        run_virtual(read_text(balance, make_call()))
    assert sum(len(member.service.opened) for member in members) == 1
    assert [member.inflight for member in members] == [0, 0]


@pytest.mark.parametrize(
    ("error", "latency"),
    [(BROKEN, 5), (UpstreamBusy("busy"), 5), (UpstreamRejected("no", status=400), None)],
)
def test_a_fast_failure_doesnt_look_fast(error, latency):
    member = plain("a", [[error]])
    balance = Balance(make_group(member)[0], clock=LoopClock())

    async def main():
        with pytest.raises(type(error)):
            await read_text(balance, make_call())
        assert member.latency.read(0) == latency

    run_virtual(main())


def test_a_failure_counts_as_no_better_than_the_slowest():
    slow, failing = plain("slow"), plain("failing")
    slow.latency.observe(0, 40)
    group, _ = make_group(slow, failing)
    group.penalise(failing, 0, 0.01)
    assert failing.latency.read(0) == 40


def test_giving_up_tells_of_slowness():
    member = plain("a", [[Wait(100), "a"]])
    balance = Balance(make_group(member)[0], clock=LoopClock())

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read_text(balance, make_call()), 8)
        assert member.latency.read(8) == 8

    run_virtual(main())


def test_it_works_with_a_repick():
    members = [guarded("dead", [[BROKEN]]), guarded("good", [["x"]])]
    group, _ = make_group(*members, strategy="weighted")
    balance = Balance(group, clock=LoopClock())

    async def main():
        for _ in range(20):
            call = make_call()
            try:
                await read_text(balance, call)
            except UpstreamUnavailable:
                call.attempts.append(Attempt("dead", "m", "UpstreamUnavailable"))
                assert balance.another(call)
                assert await read_text(balance, call) == "x"
        assert members[0].health.state(0) is HealthState.OPEN

    run_virtual(main())

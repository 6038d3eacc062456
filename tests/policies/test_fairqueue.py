from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.codel import CodelOptions, ControlledDelay
from policies.fairqueue import AdmissionOptions, FairQueue
from policies.fairshare import VirtualTokenCounters, cost
from policies.lane import Lane, Ticket
from policies.tiers import Tier, TierOptions, next_tier, owned
from tests.kit.upstream import make_call

TIER = Tier("t", TierOptions(), CodelOptions())


def tiers(**shares):
    return {
        name: Tier(name, TierOptions(share=share, weight=weight), CodelOptions())
        for name, (share, weight) in shares.items()
    }


@pytest.mark.parametrize(
    ("limit", "seats"), [(40, [24, 12, 4]), (10, [6, 3, 1]), (8, [5, 3, 1]), (1, [1, 1, 1]), (0, [0, 0, 0])]
)
def test_what_is_owned_is_rounded_up(limit, seats):
    made = tiers(pro=(60, 4), plus=(30, 2), free=(10, 1))
    assert list(owned(made.values(), limit).values()) == seats


@pytest.mark.parametrize(
    ("running", "waiting", "goes"),
    [
        ((0, 0), (1, 1), "pro"),  # both own seats: least of its own in use
        ((6, 0), (1, 1), "free"),  # the owner of few, before the borrower
        ((3, 9), (1, 1), "pro"),  # whoever lent gets the next
        ((3, 9), (0, 1), "free"),  # idle seats are lent
        ((8, 4), (1, 1), "pro"),  # a third borrowed at weight 4, against a third at weight 1
        ((18, 2), (1, 1), "free"),  # a 13th at weight 4, against a first at weight 1
        ((0, 0), (0, 0), None),
    ],
)
def test_who_takes_the_next_seat(running, waiting, goes):
    made = tiers(pro=(75, 4), free=(25, 1))
    for tier, now_running, now_waiting in zip(made.values(), running, waiting, strict=True):
        tier.running, tier.waiting = now_running, now_waiting
    tier = next_tier(made.values(), 8)
    assert (tier and tier.name) == goes


def test_options_say_what_to_do():
    for wrong in ({"share": -1}, {"weight": 0}, {"max_wait": -1}):
        with pytest.raises(ValueError, match="must"):
            TierOptions(**wrong)
    for wrong in ({"target": 0}, {"interval": 0}, {"longest_wait": 0.5}):
        with pytest.raises(ValueError, match="must"):
            CodelOptions(**wrong)
    for wrong in ({"max_waiting": -1}, {"spread": -0.1}):
        with pytest.raises(ValueError, match="must"):
            AdmissionOptions(**wrong)


# The Virtual Token Counter


def test_a_token_written_costs_two_read():
    assert cost(100, 50) == 200


def test_who_was_away_saved_nothing_up():
    counters = VirtualTokenCounters()
    counters.enter("busy")
    counters.charge("busy", 1000)
    counters.enter("new")
    assert counters.read("new") == 1000
    counters.leave("busy")
    counters.charge("new", 500)
    counters.enter("busy")
    assert counters.read("busy") == 1500


def test_who_passed_alone_is_no_further_back_than_who_comes():
    counters = VirtualTokenCounters()
    for _ in range(10):
        counters.passed("alone")
        counters.charge("alone", 100)
    counters.enter("new")
    counters.enter("alone")
    assert counters.read("alone") - counters.read("new") <= 100


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 100)), max_size=200))
def test_the_backlogged_differ_by_no_more_than_one_call(costs):
    """The paper's bound: of those who always wait, none is ahead by more than the dearest call."""
    counters = VirtualTokenCounters()
    for tenant in "abc":
        counters.enter(tenant)
    for _, amount in costs:
        counters.charge(counters.next(), amount)
    levels = [counters.read(tenant) for tenant in "abc"]
    assert max(levels) - min(levels) <= 100


def test_counters_of_those_who_are_gone_are_dropped():
    counters = VirtualTokenCounters()
    for number in range(10_000):
        counters.passed(f"t{number}")
    assert len(counters._counters) <= 4097


# Controlled delay


@pytest.mark.parametrize(
    ("delays", "overloaded"),
    [
        ([(1, 2), (5, 3), (11, 3)], False),  # the first interval begins with an empty queue
        ([(11, 2), (15, 3), (22, 3)], True),
        ([(11, 2), (15, 0.5), (22, 3)], False),  # once short is enough
        ([(11, 2), (22, 3), (25, 0.1), (33, 0.1)], False),
    ],
)
def test_a_queue_that_stands_for_an_interval_is_overload(delays, overloaded):
    codel = ControlledDelay(CodelOptions(), 0)
    for now, delay in delays:
        codel.observe(now, delay)
    assert codel.overloaded is overloaded


# A lane


def test_a_lane_serves_who_came_back_then_the_oldest_or_in_overload_the_newest():
    lane = Lane(CodelOptions(), 0)
    tickets = [Ticket(make_call(id=str(number)), TIER, 10, 1, number) for number in range(4)]
    tickets[2].promised = True
    for ticket in tickets:
        lane.push(ticket, 3)
    order = []
    for overloaded in (True, False, True):
        lane.codel.overloaded = overloaded
        ticket = lane.first()
        order.append(ticket.call.id)
        lane.remove(ticket)
    assert order == ["2", "0", "3"]
    assert (lane.waiting, lane.cost) == (1, 10)
    lane.remove(tickets[1])
    assert (lane.cost, lane.empty) == (0, True)


def test_a_promise_is_kept_once_not_before_its_time_and_not_for_ever():
    lane = Lane(CodelOptions(), 0)
    lane.promise(mark=1, now=0, wait=10, cost=7)
    lane.promise(mark=2, now=0, wait=10, cost=5)
    assert lane.ahead(1.0) == 12
    assert (lane.ahead(1.0, until=9), lane.ahead(0.5, until=11)) == (0, 6)
    assert not lane.redeem(1, 9)
    assert lane.redeem(1, 10)
    assert not lane.redeem(1, 10)
    assert lane.forget(14) == 0
    assert lane.forget(16) == 1
    assert (lane.promised, lane.ahead(1.0, until=99), lane.empty) == (0, 0, True)


# How long calls last


def served(tier, seconds, now=0.0):
    """A call takes a seat and leaves it."""
    ticket = Ticket(make_call(), tier, 10, 1, now)
    tier.sit(ticket, now)
    tier.leave(ticket)
    tier.learn(10, seconds)


def lasts(tier, now=0.0):
    """What a tier takes a call for."""
    return tier.mean / tier.pace(1, now)


@pytest.fixture
def tier():
    fresh = Tier("t", TierOptions(), CodelOptions())
    fresh.guess(10, [])
    return fresh


def test_calls_last_at_least_as_long_as_those_that_run_until_as_many_have_ended(tier):
    assert lasts(tier) == 1
    seated = [Ticket(make_call(), tier, 10, 1, 0) for _ in range(2)]
    tier.sit(seated[0], 100)
    tier.sit(seated[1], 104)
    assert [lasts(tier, now) for now in (102.5, 107, 132)] == [1, 5, 30]
    tier.leave(seated[0])
    tier.learn(10, 33)
    assert lasts(tier, 9999) == 17  # half of it the first guess


@pytest.mark.parametrize("seconds", [0.1, 60])
def test_the_first_calls_tell_as_much_as_a_mean_does_and_later_ones_less(tier, seconds):
    for _ in range(10):
        served(tier, seconds)
    assert lasts(tier) == pytest.approx((1 + 10 * seconds) / 11)
    for _ in range(100):
        served(tier, seconds)
    assert lasts(tier) == pytest.approx(seconds, rel=0.02)


def test_a_tiers_first_call_is_taken_to_last_as_long_as_others_do():
    options = AdmissionOptions({"pro": TierOptions(), "free": TierOptions()})
    queue = FairQueue(options, rng=Random(1), shed=lambda *_: None)
    for number in range(50):
        ticket = queue.ticket(make_call(id=str(number), tier="pro"), 10, 1.0, 0.0)
        queue.sit(ticket, 0.0)
        queue.leave(ticket, 20.0, None, answered=True)
    queue.ticket(make_call(tier="free"), 10, 1.0, 20.0)
    assert lasts(queue.tiers["free"]) == lasts(queue.tiers["pro"]) == pytest.approx(20, rel=0.2)


def test_what_is_promised_for_later_shuts_out_nobody_now():
    queue = FairQueue(AdmissionOptions(), rng=Random(1), shed=lambda *_: None)
    for number in range(200):
        ticket = queue.ticket(make_call(id=str(number), tenant="flood"), 10, 1.0, 0.0)
        if queue.join(ticket, 0.0, 1) is not None:
            queue.retry_after(ticket, 0.0, 1)
    while queue.waiting:
        queue.leave(queue.next(0.0, 1, 0.0), 1.0, None, answered=True)
    # Nobody of those who were sent away is due before a minute has passed. Two wait, one of them the flood's.
    for tenant in ("light", "flood"):
        assert queue.join(queue.ticket(make_call(tenant=tenant), 10, 1.0, 1.0), 1.0, 1) is None


@pytest.mark.parametrize("tenants", [20, 200])
def test_a_light_tenant_waits_for_one_turn_of_the_others_and_no_more(tenants):
    tier = Tier("t", TierOptions(), CodelOptions())
    tier.guess(10, [])
    for number in range(tenants):
        lane = tier.lane(str(number), 0)
        for call in range(9):
            lane.push(Ticket(make_call(id=str(call), tenant=str(number)), TIER, 10, 1, 0), 0)
    tier.sweep(0)
    light = tier.wait(tier.lane("light", 0), 10, 1, 0)
    heavy = tier.wait(tier.lanes["0"], 10, 1, 0)
    assert light == pytest.approx(tenants + 1, rel=0.01)  # a call takes 1 s until one has ended
    assert heavy == pytest.approx(tenants * 9 + 1, rel=0.01)


# The whole


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["join", "next", "give up", "leave", "refuse", "rule"]),
            st.sampled_from("ab"),
            st.sampled_from("xyz"),
            st.integers(0, 50),
        ),
        max_size=120,
    )
)
def test_the_counts_are_right_whatever_happens(steps):
    shed, waits, sits, now = [], [], [], 0.0
    options = AdmissionOptions({"a": TierOptions(), "b": TierOptions(weight=2)}, max_waiting=20)
    queue = FairQueue(options, rng=Random(1), shed=lambda ticket, _: shed.append(ticket))
    for number, (step, tier, tenant, size) in enumerate(steps):
        now += size / 10
        if step in {"join", "refuse"}:
            call = make_call(id=str(number), tier=tier, tenant=tenant, deadline=now + 40)
            ticket = queue.ticket(call, 3.0 * size, 1.0, now)
            if step == "refuse":
                assert queue.retry_after(ticket, now, 4) >= 1
            elif queue.join(ticket, now, 4) is None:
                waits.append(ticket)
        elif step == "next":
            if (ticket := queue.next(now, 4, 1.0)) is not None:
                sits.append(ticket)
        elif step == "give up" and (alive := [ticket for ticket in waits if ticket.waits]):
            queue.give_up(alive[size % len(alive)])
        elif step == "rule":
            queue.rule({name: TierOptions(weight=1 + size) for name in "ab"[: size % 3]})
        elif step == "leave" and sits:
            queue.leave(sits.pop(), now, None, answered=bool(size % 2))
        alive = [ticket for ticket in waits if ticket.waits]
        assert queue.waiting == len(alive) == sum(tier.waiting for tier in queue.tiers.values())
        assert sum(tier.running for tier in queue.tiers.values()) == len(sits)
        assert not set(shed) & set(sits)
        lanes_agree(queue, alive)


def lanes_agree(queue, alive):
    for tier in queue.tiers.values():
        for tenant, lane in tier.lanes.items():
            own = [ticket for ticket in alive if (ticket.tier, ticket.call.tenant) == (tier, tenant)]
            assert lane.waiting == len(own)
            assert lane.cost == pytest.approx(sum(ticket.cost for ticket in own))
            assert lane.ahead(1.0) == pytest.approx(lane.ahead(1.0, until=1e9))


def test_a_tier_that_nobody_named_counts_to_the_default_one():
    queue = FairQueue(AdmissionOptions({"a": TierOptions()}), rng=Random(1), shed=lambda *_: None)
    for tier, name in (("a", "a"), ("default", "default"), ("unheard of", "default"), ("", "default")):
        assert queue.ticket(make_call(tier=tier), 1.0, 1.0, 0.0).tier.name == name


def test_new_rules_hold_for_those_who_wait_and_lose_nobody():
    queue = FairQueue(
        AdmissionOptions({name: TierOptions(share=1) for name in "abc"}), rng=Random(1), shed=lambda *_: None
    )
    for number, tier in enumerate("aabbcc"):
        call = make_call(id=tier + str(number), tier=tier)
        assert queue.join(queue.ticket(call, 1.0, 1.0, 0.0), 0.0, 4) is None
    queue.rule({"a": TierOptions(share=0, weight=1), "b": TierOptions(share=9)})
    order = [queue.next(0.0, 4, 0.0) for _ in range(6)]
    assert order[0].call.tier == "b"  # who was first of an owner before that owns nothing now
    assert sorted(ticket.call.id[0] for ticket in order) == list("aabbcc")
    assert "c" in queue.tiers
    for ticket in order:
        queue.leave(ticket, 1.0, None, answered=True)
    queue.rule({"a": TierOptions()})
    assert set(queue.tiers) == {"a", "default"}

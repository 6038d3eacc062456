import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.affinity import Affinity, conversation
from policies.health import Health, HealthOptions
from policies.member import Member, PeakEwma, QuotaShare
from policies.pick import Latency, strategy
from policies.service import Headroom, Reply, Usage
from tests.kit.upstream import RecordingMeter, make_call


def members(count=3, **facts):
    return [
        Member(f"up{i}", None, **{name: values[i] for name, values in facts.items()}) for i in range(count)
    ]


def shares(name, group, calls=2000, call=None, **options):
    chosen = strategy(name, random.Random(1), **options)
    counted = Counter(chosen.choose(group, call or make_call(), 0.0).name for _ in range(calls))
    return [counted[member.name] / calls for member in group]


def talk(text, *more, **body):
    messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": text}, *more]
    return make_call(body={"messages": messages, **body})


# Peak-EWMA


def test_it_jumps_up_and_comes_down_slowly():
    ewma = PeakEwma(tau=10)
    assert ewma.read(0) is None
    ewma.observe(0, 1)
    ewma.observe(1, 8)
    assert ewma.read(1) == 8
    ewma.observe(11, 1)
    assert ewma.read(11) == pytest.approx(8 / 2.718 + 1 * (1 - 1 / 2.718), rel=1e-3)


def test_it_fades_and_is_then_unknown():
    ewma = PeakEwma(tau=10)
    ewma.observe(0, 4)
    assert ewma.read(10) == pytest.approx(4 / 2.718, rel=1e-3)
    assert ewma.read(20) is None
    ewma.observe(20, 1)
    assert ewma.read(20) == 1


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 100)), min_size=1, max_size=30))
def test_it_stays_within_what_was_seen(observations):
    ewma, now = PeakEwma(tau=10), 0.0
    for step, seconds in observations:
        now += step
        ewma.observe(now, seconds)
    assert min(s for _, s in observations) - 1e-9 <= ewma.read(now) <= max(s for _, s in observations) + 1e-9


def test_unary_answers_are_measured_by_their_length():
    short, long = members(2)
    for member, seconds, tokens in ((short, 1.0, 16), (long, 20.0, 800)):
        call, reply = make_call(stream=False), Reply(upstream="u", model="m")
        member.opened(call, 0)
        member.answered(call, seconds, seconds, reply)
        assert member.latency.read(seconds) is None
        reply.usage, reply.complete = Usage(output=tokens), True
        member.finished(seconds, seconds, reply)
    assert short.latency.read(1.0) == pytest.approx(long.latency.read(20.0), rel=0.2)


# Quota


def test_the_share_of_the_quota_is_what_is_left_of_the_most():
    quota = QuotaShare()
    assert quota.read(0) == 1
    quota.told(0, Headroom(remaining_requests=100, remaining_tokens=1000, reset_tokens=30))
    quota.told(1, Headroom(remaining_requests=90, remaining_tokens=250, reset_tokens=30))
    assert quota.read(30) == 0.25
    assert quota.read(31) == 1
    quota.told(40, Headroom(remaining_requests=0))
    assert quota.read(99) == 0.05
    assert quota.read(100) == 1


# Strategies


def test_latency_prefers_the_faster_and_the_less_busy():
    group = members(2)
    group[0].latency.observe(0, 1)
    group[1].latency.observe(0, 2)
    assert shares("latency", group) == [1, 0]
    group[0].inflight = 2
    assert shares("latency", group) == [0, 1]
    group[0].weight = 4.0
    assert shares("latency", group) == [1, 0]


def test_latency_weighs_quota_and_cost():
    group = members(2, cost=[1.0, 2.0])
    for member in group:
        member.latency.observe(0, 1)
    assert shares("latency", group, gamma=1) == [1, 0]
    group[0].quota.told(0, Headroom(remaining_requests=100))
    group[0].quota.told(0, Headroom(remaining_requests=10))
    assert shares("latency", group, gamma=1) == [0, 1]


def test_of_two_choices_the_worst_is_never_taken():
    group = members(5)
    for i, member in enumerate(group):
        member.latency.observe(0, 1 + i)
    share = shares("latency", group, calls=20000)
    assert share[4] == 0
    assert share[:4] == pytest.approx([0.4, 0.3, 0.2, 0.1], abs=0.02)


def test_an_unknown_latency_is_found_out_by_one_call():
    known, unknown = members(2)
    known.latency.observe(0, 1)
    latency = Latency(random.Random(1))
    assert latency.choose([known, unknown], make_call(), 0) is unknown
    unknown.opened(make_call(), 0)
    known.inflight = 50
    assert latency.choose([known, unknown], make_call(), 0.01) is known


def test_waiting_shows_before_the_timeout():
    fast, silent = members(2)
    for member in (fast, silent):
        member.latency.observe(0, 0.5)
    silent.opened(make_call(), 0)
    fast.inflight = 5
    latency = Latency(random.Random(1))
    assert latency.choose([fast, silent], make_call(), 0.6) is silent
    assert latency.choose([fast, silent], make_call(), 3) is fast


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=6))
def test_weighted_is_exact(weights):
    group = members(len(weights), weight=weights)
    for share, weight in zip(shares("weighted", group, calls=1000), weights, strict=True):
        assert share == pytest.approx(weight / sum(weights), abs=len(weights) / 1000)


def test_weighted_is_smooth():
    chosen, group = strategy("weighted", random.Random(1)), members(3, weight=[5.0, 1.0, 1.0])
    picks = "".join(chosen.choose(group, make_call(), 0).name[-1] for _ in range(7))
    assert picks == "0010200"  # nginx's own example


def test_a_schedule_and_a_return_scale_the_weight():
    health = Health("up0", options=HealthOptions(), rng=random.Random(1), meter=RecordingMeter())
    health.drain(0)
    health.resume(0)
    group = members(2, schedule=[None, lambda now: 0.5], health=[health, None])
    assert [member.weigh(30) for member in group] == [0.5, 0.5]
    assert shares("weighted", group)[0] == pytest.approx(0.1 / 0.6, abs=0.01)


def test_least_busy_fills_evenly_by_weight():
    group = members(3, weight=[1.0, 1.0, 2.0])
    chosen = strategy("least-busy", random.Random(1))
    for _ in range(40):
        chosen.choose(group, make_call(), 0).inflight += 1
    assert [member.inflight for member in group] == pytest.approx([10, 10, 20], abs=1)


def test_cheapest_and_priority_take_the_lowest_and_share_among_equals():
    group = members(3, cost=[2.0, 1.0, 1.0], priority=[0, 1, 0])
    assert shares("cheapest", group) == pytest.approx([0, 0.5, 0.5], abs=0.05)
    assert shares("priority", group) == pytest.approx([0.5, 0, 0.5], abs=0.05)


# Affinity


def test_a_conversation_keeps_its_name_through_its_turns():
    first = talk("hello")
    later = talk("hello", {"role": "assistant", "content": "hi"}, {"role": "user", "content": "more"})
    assert conversation(first) == conversation(later)
    assert conversation(first) != conversation(talk("bye"))


def test_the_callers_own_key_wins():
    assert conversation(talk("a", prompt_cache_key="k")) == conversation(talk("b", prompt_cache_key="k"))


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "once upon"},
        {"prompt": ["once", "upon"]},
        {"input": "text"},
        {},
        {"messages": "no"},
        {"messages": [3, {"role": "user"}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a\ud800"}, {"type": "image_url"}]}
            ]
        },
        {"prompt": [1, 2]},
    ],
)
def test_any_body_has_a_name(body):
    assert 0 <= conversation(make_call(body=body)) < 1 << 64


def test_conversations_spread_by_weight_and_stay():
    group = members(4, weight=[1.0, 1.0, 1.0, 3.0])
    calls = [talk(f"question {i}") for i in range(3000)]
    affinity = Affinity()
    homes = [affinity.choose(group, call, 0) for call in calls]
    assert [affinity.choose(group, call, 99) for call in calls] == homes
    counted = Counter(home.name for home in homes)
    assert [counted[m.name] / 3000 for m in group] == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2], abs=0.03)
    moved = [affinity.choose(group[1:], call, 0) for call in calls]
    assert all(now is home for now, home in zip(moved, homes, strict=True) if home is not group[0])


def test_a_popular_prefix_spills_at_its_bound():
    group, affinity, call = members(4), Affinity(1.5), talk("the same for all")
    for _ in range(400):
        affinity.choose(group, call, 0).inflight += 1
    assert max(member.inflight for member in group) <= 151
    assert sum(member.inflight > 0 for member in group) == 3

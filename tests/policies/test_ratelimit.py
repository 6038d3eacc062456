"""One bucket's arithmetic: redis-cell's own table, the bound, and the calendar."""

import math
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.memory import MemoryStore
from policies.ratelimit import (
    NEVER,
    Bucket,
    Charge,
    Dimension,
    Limit,
    Window,
    bucket_for,
    output_cap,
)
from tests.kit.redis_cell import CASES, LIMIT

START = 1_790_000_000.0


def take(store, now, *charges, holder="h"):
    return store.take_at(now, holder, [Charge(bucket, cost) for bucket, cost in charges])


def bucket(amount, window=Window.MINUTE, dimension=Dimension.REQUESTS, key="b", **facts):
    return Bucket(key, Limit(dimension, amount, window, **facts))


def test_redis_cells_own_table():
    store, limit = MemoryStore(lambda: 0), bucket(60, burst=LIMIT)
    for at, volume, remaining, reset, retry_after, limited in CASES:
        verdict = take(store, START + at, (limit, volume))
        (left,) = verdict.allowances()
        wait = verdict.retry_after if limited and verdict.retry_after != NEVER else -1
        seen = (int(left.remaining + 1e-5), left.reset, wait, not verdict.admitted)
        assert seen == pytest.approx((remaining, reset, retry_after, limited), abs=2e-6), (at, volume)


@settings(max_examples=300)
@given(
    amount=st.integers(1, 10_000),
    window=st.sampled_from([Window.SECOND, Window.MINUTE, Window.HOUR]),
    burst=st.none() | st.integers(1, 500),
    arrivals=st.lists(st.tuples(st.floats(0, 20), st.integers(1, 30)), min_size=1, max_size=60),
)
def test_in_every_window_no_more_than_the_burst_and_the_rate(amount, window, burst, arrivals):
    store, limited = MemoryStore(lambda: 0), bucket(amount, window, burst=burst)
    limit = limited.limit
    now, admitted = START, []
    for gap, cost in arrivals:
        now += gap
        if take(store, now, (limited, cost)).admitted:
            admitted.append((now, cost))
    for first, (begin, _) in enumerate(admitted):
        total = 0
        for end, cost in admitted[first:]:
            total += cost
            assert total <= limit.capacity + limit.rate * (end - begin) + 2 * limit.slack + 1e-6


@settings(max_examples=300)
@given(
    amount=st.integers(1, 10_000_000),
    window=st.sampled_from([Window.SECOND, Window.MINUTE, Window.HOUR]),
    shares=st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 1)), min_size=1, max_size=30),
)
def test_who_comes_back_exactly_when_told_is_admitted_and_earlier_is_not(amount, window, shares):
    store, limited = MemoryStore(lambda: 0), bucket(amount, window, dimension=Dimension.TOKENS)
    now = START
    for gap, share in shares:
        now += gap
        cost = amount * share
        verdict = take(store, now, (limited, cost))
        if verdict.admitted:
            continue
        assert 0 < verdict.retry_after < math.inf
        early = now + verdict.retry_after * 0.99 - 1e-5
        assert early < now or not take(store, early, (limited, cost)).admitted
        now += verdict.retry_after
        assert take(store, now, (limited, cost)).admitted


def test_a_reject_by_one_burns_nothing_of_the_others():
    store = MemoryStore(lambda: 0)
    wide, narrow = bucket(100, key="wide"), bucket(2, key="narrow")
    verdicts = [take(store, START, (wide, 1), (narrow, 1)) for _ in range(50)]
    assert [verdict.admitted for verdict in verdicts] == [True] * 2 + [False] * 48
    assert verdicts[-1].retry_after == pytest.approx(30)
    assert verdicts[-1].allowances()[0].bucket == "narrow"
    assert take(store, START, (wide, 98)).admitted
    assert not take(store, START, (wide, 1)).admitted


def test_the_wait_is_the_longest_of_all():
    store = MemoryStore(lambda: 0)
    pair = (bucket(60, key="a"), 60), (bucket(10, Window.SECOND, key="b"), 10)
    assert take(store, START, *pair).admitted
    assert take(store, START, *pair).retry_after == pytest.approx(60)


def test_an_overrun_is_debt_and_a_refund_stops_at_empty():
    store, tokens = MemoryStore(lambda: 0), bucket(60, dimension=Dimension.TOKENS)
    assert take(store, START, (tokens, 60)).admitted
    store.settle_at(START, "h", [Charge(tokens, 30)], START)
    assert take(store, START, (tokens, 1)).retry_after == pytest.approx(31)
    store.settle_at(START, "h", [Charge(tokens, -500)], START)
    assert take(store, START, (tokens, 60)).admitted
    assert not take(store, START, (tokens, 1)).admitted


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("window", "zone", "now", "end"),
    [
        (Window.DAY, "UTC", datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)),
        # The days on which Berlin's clocks change have 23 and 25 hours.
        (
            Window.DAY,
            "Europe/Berlin",
            datetime(2026, 3, 29, 0, 30, tzinfo=BERLIN),
            datetime(2026, 3, 30, tzinfo=BERLIN),
        ),
        (
            Window.DAY,
            "Europe/Berlin",
            datetime(2026, 10, 25, 0, 30, tzinfo=BERLIN),
            datetime(2026, 10, 26, tzinfo=BERLIN),
        ),
        (Window.MONTH, "UTC", datetime(2026, 12, 31, 23, 59, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
        (
            Window.MONTH,
            "America/New_York",
            datetime(2026, 3, 1, 4, tzinfo=UTC),
            datetime(2026, 3, 1, 5, tzinfo=UTC),
        ),
    ],
)
def test_days_and_months_begin_in_their_zone(window, zone, now, end):
    store, quota = MemoryStore(lambda: 0), bucket(50, window, zone=zone)
    now, end = now.timestamp(), end.timestamp()
    assert take(store, now, (quota, 50)).admitted
    verdict = take(store, now, (quota, 1))
    assert verdict.retry_after == end - now
    assert verdict.allowances()[0].reset == end - now
    assert not take(store, end - 0.001, (quota, 1)).admitted
    assert take(store, end, (quota, 50)).admitted


def test_what_was_reserved_yesterday_does_not_come_back_today():
    store, quota = MemoryStore(lambda: 0), bucket(10, Window.DAY, dimension=Dimension.SPEND)
    midnight = datetime(2026, 5, 2, tzinfo=UTC).timestamp()
    assert take(store, midnight - 5, (quota, 8)).admitted
    assert take(store, midnight + 1, (quota, 3)).admitted
    store.settle_at(midnight + 2, "h", [Charge(quota, -7)], midnight - 5)
    assert take(store, midnight + 3, (quota, 0)).amounts == [3]
    store.settle_at(midnight + 4, "h", [Charge(quota, -1)], midnight + 1)
    assert take(store, midnight + 5, (quota, 0)).amounts == [2]


def test_slots_are_free_again_when_given_back_or_not_renewed():
    store, slots = MemoryStore(lambda: 0), bucket(2, None, Dimension.CONCURRENCY, ttl=60)
    assert [take(store, START, (slots, 1), holder=name).admitted for name in "abc"] == [True, True, False]
    store.settle_at(START, "a", [Charge(slots, -1)], START)
    store.settle_at(START, "a", [Charge(slots, -1)], START)
    assert [take(store, START + 1, (slots, 1), holder=name).admitted for name in "cd"] == [True, False]
    assert take(store, START + 60, (slots, 1), holder="d").admitted


def test_empty_buckets_are_forgotten():
    store = MemoryStore(lambda: 0)
    for number in range(3000):
        take(store, START + number, (bucket(1, Window.SECOND, key=str(number)), 1))
    assert len(store.levels()) <= 1025


def test_a_clock_that_goes_back_admits_nothing_more():
    store, limited = MemoryStore(lambda: 0), bucket(10)
    assert take(store, START, (limited, 10)).admitted
    assert not take(store, START - 3600, (limited, 1)).admitted


def test_buckets_taken_from_together_lie_together():
    limit = Limit(Dimension.INPUT, 10, Window.HOUR)
    assert bucket_for(limit, tag="acme", scope="key:1").key == "tidegate:{acme}:key:1:input_tokens:hour"


def test_who_says_nothing_reserves_at_most_a_quarter():
    requests = Limit(Dimension.REQUESTS, 4, Window.MINUTE)
    tokens = Limit(Dimension.TOKENS, 1000, Window.MINUTE)
    assert output_cap([tokens, requests]) == 250
    assert output_cap([tokens, Limit(Dimension.OUTPUT, 3, Window.DAY)]) == 1
    assert output_cap([requests]) == math.inf


@pytest.mark.parametrize(
    "facts",
    [
        {"amount": 0},
        {"window": None},
        {"burst": 0},
        {"zone": "Mars/Olympus"},
        {"window": Window.DAY, "burst": 3},
        {"ttl": 0},
    ],
)
def test_a_limit_that_makes_no_sense_says_what_to_do(facts):
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        Limit(**{"dimension": Dimension.REQUESTS, "amount": 1, "window": Window.MINUTE, **facts})

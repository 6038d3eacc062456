from math import inf
from random import Random

from policies.concurrency import AdaptiveOptions, ConcurrencyLimit
from policies.errors import UpstreamKeyRejected, UpstreamThrottled
from policies.health import Health, HealthOptions
from policies.permits import Permits
from policies.seats import RouteSeats
from policies.service import Headroom
from tests.kit.upstream import RecordingMeter
from tests.kit.virtual_time import LoopClock, run_virtual


def permits_of(count):
    options = AdaptiveOptions(initial=count, max_concurrency=count)
    return Permits(ConcurrencyLimit(options, random=Random(1)), clock=LoopClock())


def health_of(*failures):
    health = Health("up", options=HealthOptions(), rng=Random(1), meter=RecordingMeter())
    for failure in failures:
        health.settle(health.admit(0.0), 0.0, failure, None)
    return health


def test_accounts_that_share_permits_are_counted_once():
    shared, other = permits_of(4), permits_of(3)
    seats = RouteSeats([(shared, health_of()), (shared, health_of()), (other, None)])
    assert (seats.limit(0.0), seats.free(0.0)) == (7, 7)
    shared.take(0.0)
    assert (seats.limit(0.0), seats.free(0.0)) == (7, 6)
    assert seats.ready_at(0.0) == inf


def test_a_hold_off_frees_no_seat_and_tells_when_to_look_again():
    permits = permits_of(4)
    seats = RouteSeats([(permits, None)])
    sent_at = permits.take(0.0)
    permits.limit.throttled(0.0, sent_at, UpstreamThrottled("wait", retry_after=9))
    permits.limit.ended(0.0, sent_at, answered=False, tokens=0)
    assert (seats.free(1.0), seats.ready_at(1.0)) == (0, 9)
    assert seats.limit(1.0) >= 1
    assert seats.free(9.0) == 1  # a probe


def test_what_is_paced_is_free_as_far_as_its_burst_goes():
    permits = permits_of(50)
    limit = permits.limit
    sent_at = permits.take(0.0)
    limit.answered(0.1, sent_at, None, Headroom(remaining_requests=20, reset_requests=10))
    free = permits.free(0.1)
    assert 8 <= free <= 11  # half of what is left may go at once
    for _ in range(free):
        assert permits.take(0.1) is not None
    assert (permits.take(0.1), permits.free(0.1)) == (None, 0)


def test_an_upstream_that_is_out_has_no_seats():
    out = health_of(UpstreamKeyRejected("no"))
    assert not out.available(0.0)
    alone = RouteSeats([(permits_of(4), out)])
    assert (alone.limit(0.0), alone.free(0.0)) == (0, 0)
    assert 0 < alone.ready_at(0.0) < inf
    assert RouteSeats([(permits_of(4), out), (permits_of(2), None)]).limit(0.0) == 2


def test_those_who_watch_are_told_of_permits_that_nobody_waits_for():
    async def run():
        permits, told = permits_of(1), []
        seats = RouteSeats([(permits, None)])
        listeners = [lambda: told.append("a"), lambda: told.append("b")]
        for listener in listeners:
            seats.watch(listener)
        for _ in range(2):
            permits.give_back(permits.take(0.0), answered=True, tokens=1)
        assert sorted(told[:2]) == sorted(told[2:]) == ["a", "b"]
        assert told[0] != told[2]  # each is first in its turn
        for listener in listeners:
            seats.unwatch(listener)
        permits.give_back(permits.take(0.0), answered=True, tokens=1)
        assert len(told) == 4

    run_virtual(run())


def held_off(seconds):
    permits = permits_of(4)
    sent_at = permits.take(0.0)
    permits.limit.throttled(0.0, sent_at, UpstreamThrottled("wait", retry_after=seconds))
    permits.limit.ended(0.0, sent_at, answered=False, tokens=0)
    return permits


def test_an_upstream_that_wants_quiet_for_longer_than_anybody_waits_is_out():
    busy, out = held_off(20), held_off(900)
    assert RouteSeats([(busy, None)]).limit(1.0) >= 1
    assert RouteSeats([(out, None)]).limit(1.0) == 0
    assert RouteSeats([(out, None), (busy, None)]).limit(1.0) == busy.limit.limit


def test_seats_open_when_the_first_hold_off_ends():
    assert RouteSeats([(held_off(20), None), (held_off(9), None)]).opens_at(1.0) == 9
    assert RouteSeats([(held_off(20), None), (permits_of(1), None)]).opens_at(1.0) <= 1
    assert RouteSeats([]).opens_at(1.0) == 1

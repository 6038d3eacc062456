"""Section 1's figures: what settling gives, the bound in every window, and waits that are true."""

# ruff: noqa: T201 - prints its figures
from random import Random

from policies.memory import MemoryStore
from policies.ratelimit import Bucket, Charge, Dimension, Limit, Window
from tests.simulation.token_traffic import START, TOKENS, busiest, offer


def test_settling_uses_the_limit_and_never_passes_it():
    without, with_it = offer(settle=False), offer(settle=True)
    print(f"\nutilisation {without.utilisation:.1%} without settling, {with_it.utilisation:.1%} with it")
    assert without.utilisation < 0.2
    assert with_it.utilisation >= 0.95
    for window in (10, 60, 300):
        most, bound = busiest(with_it, window), TOKENS.capacity + TOKENS.rate * window
        print(f"most in {window} s: {most} of {bound:.0f}")
        assert most <= bound


def test_ten_times_the_limit_for_two_minutes():
    """100 requests a minute: exact to 1%, but for a burst so small that calls come too late for it."""
    rng = Random(3)
    for burst in (1, 10, 100):
        store, bucket = (
            MemoryStore(lambda: 0),
            Bucket("b", Limit(Dimension.REQUESTS, 100, Window.MINUTE, burst)),
        )
        now, admitted = START, 0
        while (now := now + rng.expovariate(1000 / 60)) < START + 120:
            admitted += store.take_at(now, "h", [Charge(bucket, 1)]).admitted
        print(f"burst {burst}: {admitted} admitted in two minutes, bound {burst + 200}")
        assert (burst + 200) * (0.9 if burst == 1 else 0.99) <= admitted <= burst + 200


def test_clients_that_wait_as_told_are_served_in_full_and_all_of_them():
    """Thirty clients that come back when they are told: the limit is used up."""
    rng = Random(4)
    store, bucket = MemoryStore(lambda: 0), Bucket("b", Limit(Dimension.REQUESTS, 600, Window.MINUTE, 10))
    due = {client: START + rng.random() for client in range(30)}
    admitted = asked = 0
    while (now := min(due.values())) < START + 60:
        client = min(due, key=due.__getitem__)
        verdict = store.take_at(now, "h", [Charge(bucket, 1)])
        asked += 1
        admitted += verdict.admitted
        due[client] = now + (verdict.retry_after or rng.random()) + rng.random() * 0.001
    print(f"\n{admitted} of 610 admitted, {asked} asked")
    assert 0.98 * 610 <= admitted <= 610

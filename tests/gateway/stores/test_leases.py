"""Leases before a shared store: fewer round trips, and no sum of replicas above the limit."""

import asyncio
from random import Random

import pytest

from gateway.stores.redis.leases import LeasedStore, LeaseOptions
from policies.memory import MemoryStore
from policies.ratelimit import Bucket, Charge, Dimension, Limit, Window
from tests.kit.virtual_time import LoopClock, run_virtual


class Shared(MemoryStore):
    """A store whose every answer takes a millisecond, and which counts its calls."""

    def __init__(self):
        super().__init__(LoopClock().now)
        self.trips = 0

    async def take(self, holder, charges):
        self.trips += 1
        await asyncio.sleep(0.001)
        return await super().take(holder, charges)


def bucket(amount, window=Window.MINUTE, dimension=Dimension.REQUESTS, **facts):
    return Bucket("b", Limit(dimension, amount, window, **facts))


@pytest.mark.parametrize(
    ("limit", "cost", "size"),
    [
        (Limit(Dimension.REQUESTS, 6000, Window.MINUTE), 1, 100),
        (Limit(Dimension.REQUESTS, 600, Window.MINUTE), 1, 10),
        (Limit(Dimension.REQUESTS, 100, Window.MINUTE), 1, 0),
        (Limit(Dimension.REQUESTS, 6000, Window.MINUTE, 8), 1, 0),
        (Limit(Dimension.TOKENS, 400_000, Window.MINUTE), 2000, 16_000),
        (Limit(Dimension.TOKENS, 20_000, Window.MINUTE), 1000, 0),
        (Limit(Dimension.REQUESTS, 50, Window.DAY), 1, 0),
        (Limit(Dimension.REQUESTS, 100_000, Window.DAY), 1, 100),
        (Limit(Dimension.CONCURRENCY, 1000), 1, 0),
    ],
)
def test_small_limits_stay_exact(limit, cost, size):
    assert LeaseOptions().size(limit, cost) == size


def run(limited, *, seconds, rate, cost=1, used=None):
    """Offer calls to three replicas: when any was admitted, all calls, trips, and what is held."""

    async def check():
        rng, shared = Random(2), Shared()
        stores = [LeasedStore(shared, clock=LoopClock()) for _ in range(3)]
        keepers = [asyncio.create_task(store.keep()) for store in stores]
        admitted, calls = [], 0

        async def call(store, number):
            verdict = await store.take(str(number), [Charge(limited, cost)])
            if verdict.admitted:
                admitted.append(asyncio.get_running_loop().time())
                if used is not None:
                    await asyncio.sleep(0.5)
                    store.settle(str(number), [Charge(limited, used - cost)], verdict.at)

        async with asyncio.TaskGroup() as group:
            while (now := asyncio.get_running_loop().time()) < seconds:
                calls += 1
                group.create_task(call(rng.choice(stores), calls))
                await asyncio.sleep(rng.expovariate(rate))
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        for store in stores:
            await store.give_back()
        return admitted, calls, shared.trips, shared.amount(limited, now)

    return run_virtual(check())


def test_below_the_limit_few_calls_make_a_round_trip_and_all_is_accounted_for():
    limited = bucket(100_000, Window.DAY)
    admitted, calls, trips, held = run(limited, seconds=20, rate=200)
    print(f"\n{calls} calls, {trips} round trips")  # noqa: T201 - a figure
    assert len(admitted) == calls
    assert trips < calls / 10
    assert held == calls


def test_above_the_limit_no_window_sees_more_than_burst_and_rate_and_a_lease_a_replica():
    limited = bucket(6000, burst=1600)
    admitted, *_ = run(limited, seconds=40, rate=400)
    limit, leases = limited.limit, 3 * 100
    bound = limit.capacity + limit.rate * 40
    print(f"\n{len(admitted)} admitted, bound {bound:.0f}")  # noqa: T201 - a figure
    assert 0.97 * bound <= len(admitted) <= bound
    for first in range(0, len(admitted), 50):
        for last in range(first, len(admitted), 50):
            window = admitted[last] - admitted[first]
            assert last - first <= limit.capacity + limit.rate * window + leases + 1


def test_what_is_settled_can_be_spent_again():
    limited = bucket(400_000, dimension=Dimension.TOKENS)
    admitted, calls, trips, held = run(limited, seconds=60, rate=20, cost=2000, used=250)
    print(f"\n{calls} calls, {trips} round trips, {held:.0f} held")  # noqa: T201 - a figure
    assert len(admitted) == calls
    assert trips < calls / 2
    assert held <= 20 * 2000


def test_what_nobody_uses_is_given_back():
    async def check():
        shared, limited = Shared(), bucket(100_000, Window.DAY)
        store = LeasedStore(shared, clock=LoopClock())
        keeper = asyncio.create_task(store.keep())
        for _ in range(5):
            await store.take("h", [Charge(limited, 1)])
        await asyncio.sleep(0.1)
        assert shared.amount(limited, 1) > 5
        await asyncio.sleep(20)
        assert shared.amount(limited, 1) == 5
        assert not store._leases
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)

    run_virtual(check())


def test_a_refusal_by_an_exact_limit_burns_nothing_of_a_lease():
    async def check():
        shared = Shared()
        wide, narrow = bucket(100_000, Window.DAY), Bucket("n", Limit(Dimension.REQUESTS, 6, Window.DAY))
        store = LeasedStore(shared, clock=LoopClock())
        for _ in range(40):
            verdict = await store.take("h", [Charge(wide, 1), Charge(narrow, 1)])
            assert len(verdict.allowances()) == 2
        assert verdict.allowances()[0].bucket == "n"
        await store.give_back()
        assert (shared.amount(wide, 1), shared.amount(narrow, 1)) == (6, 6)

    run_virtual(check())

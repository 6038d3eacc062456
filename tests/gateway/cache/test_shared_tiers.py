"""The tiers outside the process, the same cases for Redis and for the disk."""

import asyncio
import sqlite3

import pytest

from gateway.cache.books import BookUnreachable, RedisBook
from gateway.cache.codec import Kept, encode
from gateway.cache.disk import DiskTier
from gateway.cache.purges import Purge
from gateway.cache.redis import RedisTier
from gateway.stores.redis.connect import connect
from policies.cache.answer import CachedAnswer
from policies.facts import CacheDropped, CacheEvicted
from policies.service import Usage
from tests.gateway.cache.test_memory import key
from tests.kit.processes import PATIENCE
from tests.kit.upstream import RecordingMeter
from tests.kit.valkey import ValkeyServer
from tests.kit.virtual_time import LoopClock, PatientClock


class WallTime:
    """Seconds since the epoch, moved by hand."""

    def __init__(self):
        self.now = 1e9

    def __call__(self):
        return self.now


def kept(number, *, keep=1000, **facts):
    usual = {"scope": "=acme", "model": "m", "created": 1e9, "body": b"body"}
    answer = CachedAnswer(
        key=key(number), upstream="up", served_model="m-1", usage=Usage(3, 2), **{**usual, **facts}
    )
    return Kept(answer, answer.created + keep)


class HandClock(PatientClock):
    """Stands still unless moved by hand."""

    def __init__(self):
        self.at = 1000.0

    def now(self):
        return self.at


@pytest.fixture
def meter():
    return RecordingMeter()


@pytest.fixture
def wall():
    return WallTime()


@pytest.fixture(scope="module")
def valkey(tmp_path_factory):
    server = ValkeyServer(tmp_path_factory.mktemp("valkey")).start()
    yield server
    server.kill()


@pytest.fixture
async def client(valkey):
    client = connect(valkey.url, timeout=PATIENCE)
    await client.flushall()
    await client.config_set("maxmemory", "0")
    await client.config_set("maxmemory-policy", "noeviction")
    yield client
    await client.aclose()


@pytest.fixture
def redis_tier(client, wall, meter):
    return RedisTier(client, max_entry=10_000, clock=PatientClock(), wall_time=wall, meter=meter)


@pytest.fixture
async def disk_tier(tmp_path, wall, meter):
    tier = DiskTier(tmp_path / "cache.db", 100_000, wall_time=wall, meter=meter)
    yield tier
    await tier.close()


@pytest.fixture(params=["redis", "disk"])
def tier(request):
    return request.getfixturevalue(f"{request.param}_tier")


async def present(tier, *numbers):
    return [number for number in numbers if await tier.get(key(number)) is not None]


async def test_what_is_put_is_there(tier):
    assert await tier.get(key(1)) is None
    await tier.put(kept(1))
    assert await tier.get(key(1)) == kept(1)
    await tier.put(kept(1, body=b"newer"))
    assert (await tier.get(key(1))).answer.body == b"newer"


@pytest.mark.parametrize(
    ("purge", "left"),
    [
        (Purge(1e9 + 1), []),
        (Purge(1e9 - 1), [1, 2, 3, 4]),
        (Purge(1e9 + 1, tenant="acme"), [2, 4]),
        (Purge(1e9 + 1, model="m"), [3]),
        (Purge(1e9 + 1, tenant="acme", model="m"), [2, 3, 4]),
        (Purge(1e9 + 1, key=key(2)), [1, 3, 4]),
        (Purge(1e9 + 1, tenant="acme", key=key(2)), [1, 2, 3, 4]),
    ],
)
async def test_a_purge_frees_what_it_covers(tier, purge, left):
    await tier.put(kept(1))
    await tier.put(kept(2, scope="=other"))
    await tier.put(kept(3, model="n"))
    await tier.put(kept(4, scope="*"))
    await tier.discard(purge)
    assert await present(tier, 1, 2, 3, 4) == left


async def test_a_corrupt_entry_is_dropped_and_counted(tier, client, meter, tmp_path):
    await tier.put(kept(1))
    damaged = encode(kept(1))[:-3]
    if tier.name == "redis":
        await client.set(f"tidegate:answer:{key(1)}", damaged)
    else:
        with sqlite3.connect(tmp_path / "cache.db") as database:
            database.execute("UPDATE answers SET data = ?", (damaged,))
        database.close()
    assert await tier.get(key(1)) is None
    assert meter.of(CacheDropped) == [CacheDropped(tier.name, "corrupt")]
    assert await tier.get(key(1)) is None
    assert len(meter.facts) == 1
    await tier.put(kept(1))
    assert await tier.get(key(1)) == kept(1)


async def test_redis_forgets_by_itself(redis_tier, client, wall):
    await redis_tier.put(kept(1))
    assert 1000 - PATIENCE < await client.pttl(f"tidegate:answer:{key(1)}") / 1000 <= 1000
    wall.now += 2000
    await redis_tier.put(kept(2))
    assert await client.exists(f"tidegate:answer:{key(2)}") == 0


async def test_redis_takes_no_large_entries(redis_tier, meter):
    await redis_tier.put(kept(1, body=bytes(range(256)) * 1000))
    assert await redis_tier.get(key(1)) is not None, "it compresses well"
    noise = b"".join(key(number).encode() for number in range(1000))
    await redis_tier.put(kept(2, body=noise))
    assert await redis_tier.get(key(2)) is None
    assert meter.of(CacheDropped) == [CacheDropped("redis", "oversized")]


async def test_a_redis_that_is_away_costs_one_try_a_second(tmp_path, wall, meter):
    server = ValkeyServer(tmp_path).start()
    client, clock = connect(server.url, timeout=PATIENCE), HandClock()
    tier = RedisTier(client, max_entry=10_000, clock=clock, wall_time=wall, meter=meter)
    await tier.put(kept(1))
    server.kill()
    for _ in range(100):
        assert await tier.get(key(1)) is None
        await tier.put(kept(2))
    assert meter.of(CacheDropped) == [CacheDropped("redis", "unreachable")]
    server.start()
    await tier.put(kept(2))
    clock.at += 1
    assert await present(tier, 2) == []
    await tier.put(kept(3))
    assert await tier.get(key(3)) == kept(3)
    await client.aclose()
    server.kill()


async def test_a_cluster_that_is_away_has_no_answers_and_no_purges(wall, meter):
    client = connect("redis+cluster://127.0.0.1:1", timeout=1)
    tier = RedisTier(client, max_entry=10_000, clock=LoopClock(), wall_time=wall, meter=meter)
    await tier.put(kept(1))
    assert await tier.get(key(1)) is None
    await tier.discard(Purge(1e9))
    assert set(meter.of(CacheDropped)) == {CacheDropped("redis", "unreachable")}
    with pytest.raises(BookUnreachable):
        await RedisBook(client).read(0.0)


async def test_the_disk_is_bounded_and_the_least_recently_used_go(disk_tier, wall, meter):
    size = len(encode(kept(0)))
    room = 100_000 // size
    for number in range(room):
        wall.now += 1
        await disk_tier.put(kept(number, keep=1e6))
    assert await present(disk_tier, 0, room - 1) == [0, room - 1]
    wall.now += 1000
    assert await disk_tier.get(key(0)) is not None
    for number in range(room, room + 10):
        wall.now += 1
        await disk_tier.put(kept(number, keep=1e6))
        assert (await disk_tier.size()).bytes <= 100_000
    assert await present(disk_tier, 0, 1, room + 9) == [0, room + 9]
    assert sum(fact.count for fact in meter.of(CacheEvicted) if fact.why == "full") >= 10


async def test_the_disk_makes_room_of_what_expired(disk_tier, wall, meter):
    await disk_tier.put(kept(1))
    wall.now += 2000
    await disk_tier.put(kept(2, created=wall.now))
    assert (await disk_tier.size()).entries == 1
    assert meter.of(CacheEvicted) == [CacheEvicted("disk", 1, "expired")]


async def test_the_disk_outlives_a_restart_and_is_shared(tmp_path, wall, meter):
    tiers = [DiskTier(tmp_path / "c.db", 100_000, wall_time=wall, meter=meter) for _ in range(3)]
    await asyncio.gather(*(tier.put(kept(at)) for at, tier in enumerate(tiers)))
    assert await present(tiers[0], 0, 1, 2) == [0, 1, 2]
    await asyncio.gather(*(tier.close() for tier in tiers))
    again = DiskTier(tmp_path / "c.db", 100_000, wall_time=wall, meter=meter)
    assert await present(again, 0, 1, 2) == [0, 1, 2]
    assert (await again.size()).entries == 3
    await again.close()
    assert (tmp_path / "c.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("wreck", [b"no database", b"SQLite format 3\x00" + bytes(5000)])
async def test_a_wrecked_file_is_thrown_away(tmp_path, wall, meter, wreck):
    (tmp_path / "c.db").write_bytes(wreck)
    tier = DiskTier(tmp_path / "c.db", 100_000, wall_time=wall, meter=meter)
    assert await tier.get(key(1)) is None
    await tier.put(kept(1))
    assert await tier.get(key(1)) == kept(1)
    assert CacheDropped("disk", "corrupt") in meter.facts
    await tier.close()


async def test_redis_leaves_room_to_what_may_not_be_evicted(redis_tier, client, meter):
    await client.config_set("maxmemory", "1mb")
    await redis_tier.put(kept(1))
    assert await redis_tier.get(key(1)) is None
    assert meter.of(CacheDropped) == [CacheDropped("redis", "full")]


async def test_redis_that_evicts_is_given_all(redis_tier, client, meter):
    await client.config_set("maxmemory-policy", "allkeys-lfu")
    await redis_tier.put(kept(1))
    assert await redis_tier.get(key(1)) == kept(1)


async def test_a_redis_that_is_slow_to_read_is_still_written_to(client, valkey, wall, meter):
    tier = RedisTier(client, max_entry=10_000, clock=LoopClock(), wall_time=wall, meter=meter)
    valkey.hang()
    try:
        assert await tier.get(key(1)) is None
        writing = asyncio.create_task(tier.put(kept(1)))
        await asyncio.sleep(0)
        assert not writing.done()
    finally:
        valkey.go_on()
    await writing
    assert await client.exists(f"tidegate:answer:{key(1)}")
    assert [fact.why for fact in meter.of(CacheDropped)] == ["unreachable"]

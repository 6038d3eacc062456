"""The tiers as one store, and the purges that cover all of them."""

import asyncio
import dataclasses
from dataclasses import dataclass, field

import pytest

from gateway.cache.books import DatabaseBook, RedisBook
from gateway.cache.codec import Kept
from gateway.cache.memory import byte_cache
from gateway.cache.purges import Purge, Purges
from gateway.cache.tiers import TieredStore, TierOptions
from gateway.stores.database import open_database
from gateway.stores.migration import migrate
from gateway.stores.redis.connect import connect
from policies.facts import CacheDropped, CacheEvicted
from tests.gateway.cache.test_memory import key
from tests.gateway.cache.test_shared_tiers import WallTime, kept
from tests.kit.processes import PATIENCE
from tests.kit.upstream import RecordingMeter
from tests.kit.valkey import ValkeyServer


@dataclass
class SlowTier:
    """A shared tier that keeps everything, once it is allowed to."""

    name = "slow"
    held: dict[str, Kept] = field(default_factory=dict)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    gets: int = 0

    async def get(self, wanted):
        self.gets += 1
        return self.held.get(wanted)

    async def put(self, entry):
        await self.gate.wait()
        self.held[entry.answer.key] = entry


@dataclass
class Tiers:
    """A store over a slow shared tier."""

    shared: SlowTier = field(default_factory=SlowTier)
    wall: WallTime = field(default_factory=WallTime)
    meter: RecordingMeter = field(default_factory=RecordingMeter)
    purges: Purges = field(default_factory=Purges)
    tasks: set = field(default_factory=set)

    def __post_init__(self):
        self.store = self.another()

    def another(self):
        return TieredStore(
            byte_cache("lru", 100_000, lambda _: None),
            self.shared,
            TierOptions(max_entry=1000),
            purges=self.purges,
            wall_time=self.wall,
            spawn=lambda work: self.tasks.add(asyncio.create_task(work)),
            meter=self.meter,
        )

    def put(self, entry):
        self.store.put(entry.answer, entry.until - entry.answer.created)


async def test_an_answer_is_at_hand_at_once_and_written_behind():
    tiers = Tiers()
    tiers.put(kept(1))
    assert await tiers.store.get(key(1)) == (kept(1).answer, "memory")
    assert tiers.shared.held == {}
    settled = asyncio.create_task(tiers.store.settled(key(1)))
    await asyncio.sleep(0)
    assert not settled.done()
    tiers.shared.gate.set()
    await settled
    assert tiers.shared.held == {key(1): kept(1)}
    await tiers.store.settled(key(1))


async def test_what_another_wrote_is_found_and_kept_at_hand():
    tiers = Tiers()
    tiers.shared.held[key(1)] = kept(1)
    assert await tiers.store.get(key(1)) == (kept(1).answer, "slow")
    assert await tiers.store.get(key(1)) == (kept(1).answer, "memory")
    assert tiers.shared.gets == 1


async def test_of_several_writes_of_one_key_the_last_counts():
    tiers = Tiers()
    for body in (b"a", b"b", b"c"):
        tiers.put(kept(1, body=body))
    await asyncio.sleep(0)
    tiers.put(kept(1, body=b"d"))
    tiers.shared.gate.set()
    await tiers.store.settled(key(1))
    assert tiers.shared.held[key(1)].answer.body == b"d"


async def test_a_shared_tier_that_cannot_keep_up_is_not_waited_for():
    tiers = Tiers()
    for number in range(1100):
        tiers.put(kept(number))
    assert tiers.meter.of(CacheDropped) == [CacheDropped("slow", "busy")] * 76
    tiers.shared.gate.set()
    await asyncio.gather(*tiers.tasks)
    assert len(tiers.shared.held) == 1024


async def test_what_waits_is_written_though_its_writer_was_cancelled():
    tiers = Tiers()
    tiers.put(kept(1))
    tiers.put(kept(2))
    await asyncio.sleep(0)
    for task in tiers.tasks:
        task.cancel()
    await asyncio.wait(tiers.tasks)
    tiers.shared.gate.set()
    await tiers.store.flush()
    assert set(tiers.shared.held) == {key(1), key(2)}


async def test_oversized_answers_are_dropped_and_counted():
    tiers = Tiers()
    tiers.put(kept(1, body=bytes(1001)))
    assert await tiers.store.get(key(1)) is None
    assert tiers.meter.of(CacheDropped) == [CacheDropped("memory", "oversized")]


async def test_expired_answers_are_gone():
    tiers = Tiers()
    tiers.put(kept(1))
    tiers.wall.now += 1001
    assert await tiers.store.get(key(1)) is None
    assert tiers.meter.of(CacheEvicted) == [CacheEvicted("memory", 1, "expired")]


@pytest.mark.parametrize(
    ("purge", "left"),
    [
        (Purge(1e9), []),
        (Purge(1e9 - 1), [1, 2, 3]),
        (Purge(1e9, tenant="acme"), [2]),
        (Purge(1e9, model="m"), [3]),
        (Purge(1e9, tenant="acme", model="n"), [1, 2]),
        (Purge(1e9, key=key(2)), [1, 3]),
    ],
)
async def test_what_was_purged_is_gone_from_every_tier(purge, left):
    tiers = Tiers()
    tiers.shared.gate.set()
    for entry in (kept(1), kept(2, scope="=other"), kept(3, model="n")):
        tiers.put(entry)
    await asyncio.gather(*tiers.tasks)
    assert tiers.purges.learn([purge], 0.0) == [purge]
    assert tiers.purges.learn([purge], 0.0) == []
    tiers.store.forget(purge)
    for store in (tiers.store, tiers.another()):
        found = [number for number in (1, 2, 3) if await store.get(key(number)) is not None]
        assert found == left
    tiers.put(kept(1, created=1e9 + 0.001))
    assert await tiers.store.get(key(1)) is not None, "what was asked for after the purge counts"


@pytest.fixture(params=["database", "redis"])
async def book(request, tmp_path):
    if request.param == "redis":
        server = ValkeyServer(tmp_path).start()
        client = connect(server.url, timeout=PATIENCE)
        yield RedisBook(client)
        await client.aclose()
        server.kill()
    else:
        engine = open_database(f"sqlite:///{tmp_path}/t.db")
        await migrate(engine)
        yield DatabaseBook(engine)
        await engine.dispose()


async def test_a_book_tells_all_that_was_written_and_not_too_old(book):
    assert await book.read(0.0) == []
    old, tenant, model = Purge(10.0), Purge(20.0, tenant="caf\u00e9"), Purge(30.5, model="m", key="k")
    for purge in (old, tenant, model):
        await book.add(purge, 0.0)
    assert sorted(await book.read(0.0)) == [old, tenant, model]
    again = Purge(40.0)
    await book.add(again, 15.0)
    assert sorted(await book.read(0.0)) == [tenant, model, again]


async def test_a_book_is_read_from_the_last_known_on(book):
    purges = Purges()
    first, late = Purge(1000.0), Purge(900.0, tenant="slow clock")
    await book.add(first, 0.0)
    assert purges.learn(await book.read(purges.since), 0.0) == [first]
    await book.add(late, 0.0)
    await book.add(Purge(2000.0, key="k"), 0.0)
    assert {purge.at for purge in purges.learn(await book.read(purges.since), 0.0)} == {900.0, 2000.0}
    assert await book.read(purges.since) == [Purge(2000.0, key="k")]
    assert purges.learn(await book.read(0.0), 0.0) == []


def test_purges_from_before_the_horizon_are_forgotten_and_not_learnt_again():
    purges = Purges()
    assert purges.learn([Purge(10.0, key="a"), Purge(30.0, key="b")], 0.0)
    assert purges.learn([Purge(40.0, key="c")], 20.0)
    assert purges.learn([Purge(10.0, key="a"), Purge(30.0, key="b")], 20.0) == []
    answer = kept(1, created=5.0).answer
    assert not purges.covers(dataclasses.replace(answer, key="a"))
    assert purges.covers(dataclasses.replace(answer, key="b"))

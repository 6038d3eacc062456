"""Quotas in the database: what they held is there again after a restart, and never goes back."""

import asyncio

import pytest

from gateway.counts import Counts, Place
from gateway.parts import Parts
from gateway.stores.quotas import KeptQuotas, QuotaStore
from policies.memory import MemoryStore
from policies.ratelimit import Bucket, Charge, Dimension, Level, Limit, Window
from tests.kit.upstream import RecordingMeter
from tests.kit.virtual_time import LoopClock

NOON = 1_700_050_000.0
DAY = Bucket("day", Limit(Dimension.REQUESTS, 3, Window.DAY))
MINUTE = Bucket("minute", Limit(Dimension.REQUESTS, 3, Window.MINUTE))
SLOTS = Bucket("slots", Limit(Dimension.CONCURRENCY, 3))


@pytest.fixture
def stores(engines):
    return [QuotaStore(engine, lambda: NOON) for engine in engines]


async def test_the_latest_word_counts(stores):
    one, other = stores
    await one.save({"day": Level(2, NOON), "month": Level(7.5, NOON)})
    await other.save({"day": Level(3, NOON + 1)})
    await one.save({"day": Level(1, NOON - 1)})  # looked at before the other did
    assert await one.load() == {"day": Level(3, NOON + 1), "month": Level(7.5, NOON)}
    await one.save({"day": Level(2, NOON + 1)})  # what was reserved came back
    assert (await other.load())["day"] == Level(2, NOON + 1)


async def test_quotas_of_past_months_are_forgotten(stores):
    one, other = stores
    await one.save({"old": Level(1, NOON - 33 * 86400), "new": Level(1, NOON - 30 * 86400)})
    assert set(await one.load()) == {"new"}
    assert set(await other.load()) == {"new"}


async def test_only_what_outlives_a_restart_is_written_and_only_when_it_changed(stores):
    quotas, _ = stores
    memory = MemoryStore(lambda: NOON)
    kept = KeptQuotas(memory, quotas, level=memory.level, clock=LoopClock())
    verdict = await kept.take("h", [Charge(bucket, 1) for bucket in (DAY, MINUTE, SLOTS)])
    await kept.save()
    assert await quotas.load() == {"day": Level(1, NOON)}
    kept.settle("h", [Charge(DAY, -1)], verdict.at)
    await kept.save()
    assert await quotas.load() == {"day": Level(0, NOON)}
    assert not (await kept.take("h", [Charge(DAY, 4)])).admitted
    await quotas.save({"day": Level(9, NOON)})
    await kept.save()  # nothing has changed
    assert (await quotas.load())["day"] == Level(9, NOON)


async def test_a_database_that_is_away_is_told_later(stores):
    quotas, _ = stores
    memory = MemoryStore(lambda: NOON)
    kept = KeptQuotas(memory, quotas, level=memory.level, clock=LoopClock())
    await kept.take("h", [Charge(DAY, 2)])
    save, quotas.save = quotas.save, refuse
    with pytest.raises(OSError, match="away"):
        await kept.save()
    quotas.save = save
    await kept.save()
    assert await quotas.load() == {"day": Level(2, NOON)}


async def refuse(_):
    raise OSError("away")


async def test_a_worker_goes_on_from_what_the_one_before_it_counted(engines, stores):
    from gateway.clock import system_random  # noqa: PLC0415

    parts = Parts(LoopClock(), lambda: NOON, system_random(), RecordingMeter(), None)
    admitted = []
    for _ in range(2):
        counts = await Counts.open(Place(), parts, stores[0])
        admitted += [(await counts.store.take("h", [Charge(DAY, 1)])).admitted for _ in range(2)]
        await counts.aclose()
    assert admitted == [True, True, True, False]


async def test_two_who_save_the_same_quotas_do_not_wait_for_each_other(stores):
    levels = {f"b{number:03}": Level(1.0, NOON) for number in range(300)}
    backwards = dict(reversed(levels.items()))
    for _ in range(5):
        await asyncio.gather(stores[0].save(levels), stores[1].save(backwards))
    assert await stores[0].load() == levels

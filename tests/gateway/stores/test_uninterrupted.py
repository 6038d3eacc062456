"""A writer that is cancelled keeps nobody else from writing."""

import asyncio

import pytest

from gateway.stores.quotas import QuotaStore
from gateway.stores.uninterrupted import uninterrupted
from policies.ratelimit import Level
from tests.kit.virtual_time import run_virtual

NOW = 1000.0


async def test_whoever_writes_after_one_that_was_cancelled_can(engines):
    store = QuotaStore(engines[0], lambda: NOW)
    many = {f"b{number}": Level(1.0, NOW) for number in range(200)}
    for steps in range(12):
        writing = asyncio.create_task(store.save(many))
        for _ in range(steps):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
        async with asyncio.timeout(4):  # less than SQLite waits for a lock
            await store.save({"last": Level(float(steps), NOW)})
        assert (await store.load())["last"].amount == steps


async def test_the_end_comes_before_the_cancellation():
    steps = []

    @uninterrupted
    async def write():
        steps.append("begun")
        await asyncio.sleep(0.01)
        steps.append("ended")

    task = asyncio.create_task(write())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps == ["begun", "ended"]


def test_a_write_without_an_end_holds_nobody_up_for_ever():
    ended = []

    @uninterrupted
    async def write():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(asyncio.get_running_loop().time())

    async def main():
        task = asyncio.create_task(write())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)
        assert ended == [6.0]

    run_virtual(main())


async def test_what_is_raised_comes_through():
    @uninterrupted
    async def write():
        raise LookupError

    with pytest.raises(LookupError):
        await write()

"""What counts as a server's delay, in virtual time."""

import asyncio

import pytest

from gateway.stores.redis.patience import in_time
from tests.kit.virtual_time import LoopClock, run_virtual


async def after_turns(count):
    """An answer that is there, and takes so many turns of the event loop to be read."""
    for _ in range(count):
        await asyncio.sleep(0)
    return "answer"


async def after(seconds):
    await asyncio.sleep(seconds)
    return "answer"


async def busy():
    """Have every turn of the loop take 100 ms, as with a hundred other calls."""
    while True:
        asyncio.get_running_loop()._jumping.elapsed += 0.1
        await asyncio.sleep(0)


def test_what_comes_in_time_is_given():
    assert run_virtual(in_time(after(0.2), 0.25, LoopClock())) == "answer"


def test_a_slow_server_is_waited_for_no_longer():
    async def main():
        with pytest.raises(TimeoutError):
            await in_time(after(3600), 0.25, LoopClock())
        assert asyncio.get_running_loop().time() == pytest.approx(0.25)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1, "nobody waits for its answer any more"

    run_virtual(main())


def test_our_own_lateness_is_not_the_server_s():
    async def main():
        others = asyncio.create_task(busy())
        assert await in_time(after_turns(10), 0.25, LoopClock()) == "answer"
        assert asyncio.get_running_loop().time() > 0.9
        others.cancel()

    run_virtual(main())


def test_what_it_raises_is_raised():
    async def fail():
        raise ConnectionError

    with pytest.raises(ConnectionError):
        run_virtual(in_time(fail(), 0.25, LoopClock()))


def test_who_leaves_ends_it():
    async def main():
        waiting = asyncio.create_task(in_time(after(0.2), 0.25, LoopClock()))
        await asyncio.sleep(0.1)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert len(asyncio.all_tasks()) == 1

    run_virtual(main())

import asyncio

import pytest

from policies.watch import Watch
from tests.kit.virtual_time import LoopClock, run_virtual


async def until_cancelled(watch, *waits):
    """Wait so often and for so long, with pauses of a minute, and return when the watch ended one."""
    for seconds in waits:
        watch.begin()
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            if watch.stop():
                return asyncio.get_running_loop().time()
            raise
        watch.stop()
        await asyncio.sleep(60)
    watch.close()
    return None


def test_a_wait_that_is_too_long_ends_on_time():
    async def main():
        assert await until_cancelled(Watch(LoopClock(), 5), 4, 4, 9) == 4 + 60 + 4 + 60 + 5
        assert asyncio.current_task().cancelling() == 0

    run_virtual(main())


def test_what_lies_between_waits_does_not_count():
    async def main():
        assert await until_cancelled(Watch(LoopClock(), 5), *[4.9] * 20) is None

    run_virtual(main())


def test_less_may_be_allowed_later():
    async def main():
        watch = Watch(LoopClock(), 100)
        await asyncio.sleep(10)
        watch.allow(2)
        return await until_cancelled(watch, 1, 3)

    assert run_virtual(main()) == 10 + 1 + 60 + 2


def test_nobody_who_does_not_wait_is_cancelled():
    async def main():
        watch = Watch(LoopClock(), 5)
        watch.left = -1.0  # the loop was held up, and what came late came all the same
        await asyncio.sleep(60)
        watch.close()

    run_virtual(main())


@pytest.mark.parametrize("after", [1, 5, 9])
def test_somebody_elses_cancellation_is_passed_on(after):
    async def main():
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(wait())
        loop.call_later(after, task.cancel)
        if after <= 5:
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            assert await task == 5

    async def wait():
        return await until_cancelled(Watch(LoopClock(), 5), 20)

    run_virtual(main())


def test_a_closed_watch_does_nothing():
    async def main():
        watch = Watch(LoopClock(), 5)
        watch.begin()
        watch.close()
        await asyncio.sleep(60)

    run_virtual(main())

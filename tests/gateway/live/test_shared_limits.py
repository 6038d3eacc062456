"""Limits that several processes share, while the server that counts them comes and goes."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.kit import processes
from tests.kit.chat import CHAT, chat
from tests.kit.lateness import Lateness
from tests.kit.offered import most_in_a_window, offer
from tests.kit.processes import CLIENT_KEY, eventually
from tests.kit.replicas import replicas
from tests.kit.zones import noon

REPLICAS = 3


def sections(**limits):
    keys = [{"name": "client", "key": CLIENT_KEY, "tenant": "acme", "tier": "free"}]
    return {"tiers": {"free": {"limits": limits, "zone": noon()}}, "keys": keys}


def status(client):
    return client.post(CHAT, json=chat("ok")).status_code


def readiness(client):
    return client.get("/readyz").json()


def valkey_of(gateway):
    """The id of the gateway's own Valkey."""
    for child in processes.children_of(gateway.pid):
        if b"valkey-server" in Path(f"/proc/{child}/cmdline").read_bytes():
            return child
    return None


def test_the_valkey_of_several_workers_dies_and_is_started_again(launch):
    with launch(server={"workers": 2}, **sections(requests=["2/day", "100/hour"])) as gateway:
        first = eventually(lambda: valkey_of(gateway))
        with gateway.client() as client:
            assert [status(client) for _ in range(3)] == [200, 200, 429]
            os.kill(first, signal.SIGKILL)
            assert {status(client) for _ in range(20)} == {429}
            second = eventually(lambda: valkey_of(gateway) not in {None, first} and valkey_of(gateway))
            eventually(lambda: "back" in gateway.log())
            eventually(lambda: readiness(client) == {"status": "ready"})
            assert status(client) == 429
            assert "tidegate_store_outages_total" in client.get("/metrics").text
    eventually(lambda: not processes.alive(second))


@pytest.fixture
def three(upstream, tmp_path):
    """Three gateways, and the server that they share."""
    limits = sections(requests={"amount": "20/second", "burst": 20})
    with replicas(upstream, tmp_path, REPLICAS, **limits) as running:
        yield running


def test_three_gateways_share_a_limit_through_an_outage_of_its_server(three):
    server, gateways = three
    urls = [gateway.url for gateway in gateways]

    async def outage():
        await asyncio.sleep(2)
        server.kill()
        await asyncio.sleep(2)
        await asyncio.to_thread(server.start)

    async def traffic():
        broken = asyncio.create_task(outage())
        answers = await offer(urls, rate=100, seconds=7)
        await broken
        return answers

    with Lateness() as lateness:
        answers = asyncio.run(traffic())
    assert {answer.status for answer in answers} == {200, 429}
    # While the machine stands still nobody asks, and of what isn't taken only the burst is kept.
    asking = max(answer.at for answer in answers) - lateness.total
    assert sum(answer.status == 200 for answer in answers) >= 0.8 * (20 + 20 * asking)
    for gateway in gateways:
        with gateway.client() as client:
            eventually(lambda client=client: readiness(client) == {"status": "ready"})
            assert "tidegate_store_outages_total 1.0" in client.get("/metrics").text
    # One call a replica may be above the limit: each rounds its part up to a whole one.
    assert most_in_a_window(answers, rate=20) <= 20 + REPLICAS

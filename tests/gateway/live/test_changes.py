"""Changes reach every process by word of those who made them: here nobody would look for an hour."""

from contextlib import ExitStack

import pytest

from tests.kit import processes, valkey
from tests.kit.processes import CLIENT_KEY, eventually
from tests.kit.workers import each, status

SERVER = {"workers": 2, "poll": "1h"}


def ready(gateway):
    eventually(lambda: len(gateway.workers()) == 2)
    for _ in each(gateway):
        eventually(lambda: status(gateway, CLIENT_KEY) == 200)
    return gateway


def make_key(gateway):
    with gateway.admin() as admin:
        return admin.post("/admin/keys", json={"name": "new", "tenant": "t"}).json()


def delete_key(gateway, key):
    with gateway.admin() as admin:
        assert admin.delete(f"/admin/keys/{key['id']}").status_code == 204


def assert_everywhere(gateways, key, expected):
    for gateway in gateways:
        for _ in each(gateway):
            eventually(lambda gateway=gateway: status(gateway, key["key"]) == expected)


def test_two_workers_tell_each_other_over_the_valkey_that_they_share(launch):
    with launch(server=SERVER) as gateway:
        ready(gateway)
        key = make_key(gateway)
        assert_everywhere([gateway], key, 200)
        delete_key(gateway, key)
        assert_everywhere([gateway], key, 401)


@pytest.fixture
def replicas(upstream, tmp_path):
    """Two gateways of two workers each with one database, and the server that they share."""
    with ExitStack() as running:
        server = valkey.ValkeyServer(tmp_path).start()
        running.callback(server.kill)
        started = []
        for name in ("a", "b"):
            folder = tmp_path / name
            folder.mkdir()
            config = processes.settings(upstream.url, tmp_path / "shared.db", store=server.url, server=SERVER)
            started.append(ready(running.enter_context(processes.gateway(folder, config))))
        yield server, started


def test_replicas_tell_each_other_and_catch_up_when_their_server_comes_back(replicas):
    server, (first, second) = replicas
    key = make_key(first)
    assert_everywhere([first, second], key, 200)
    server.kill()
    delete_key(second, key)
    server.start()
    assert_everywhere([first, second], key, 401)
    again = make_key(second)
    assert_everywhere([first, second], again, 200)

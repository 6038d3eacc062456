"""Changes reach every process by word of those who made them: here nobody would look for an hour."""

import pytest

from tests.kit.processes import eventually
from tests.kit.replicas import replicas
from tests.kit.workers import each, ready, status

SERVER = {"workers": 2, "poll": "1h"}


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
def two(upstream, tmp_path):
    """Two gateways of two workers each with one database, and the server that they share."""
    with replicas(upstream, tmp_path, 2, tmp_path / "shared.db", server=SERVER) as (server, gateways):
        yield server, [ready(gateway) for gateway in gateways]


def test_replicas_tell_each_other_and_catch_up_when_their_server_comes_back(two):
    server, (first, second) = two
    key = make_key(first)
    assert_everywhere([first, second], key, 200)
    server.kill()
    delete_key(second, key)
    server.start()
    assert_everywhere([first, second], key, 401)
    again = make_key(second)
    assert_everywhere([first, second], again, 200)

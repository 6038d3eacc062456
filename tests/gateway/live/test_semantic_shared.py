"""The semantic cache of several workers, and of two gateways with one Redis: each has its own prompts."""

import pytest

from tests.kit import processes
from tests.kit.chat import CHAT, new_id
from tests.kit.processes import eventually
from tests.kit.valkey import ValkeyServer
from tests.kit.workers import each, ready

ASKED = "How do I sort a list in Python?"
ALIKE = "What's the way to sort a Python list?"
SEMANTIC = {"semantic": {"delta": "90%", "verify": "0%"}}


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    with processes.faulty_upstream(tmp_path_factory.mktemp("upstream")) as running:
        yield running


def config(upstream, folder, **sections):
    return processes.settings(
        upstream.url,
        folder / "keys.db",
        models={"near/*": {"route": ["up/*"], "cache": SEMANTIC}},
        # Without a file, whose lock a halted worker might hold.
        cache={"disk": "off", "embeddings": "up/embed/ok", "embeddings_timeout": "20s"},
        **sections,
    )


def ask(gateway, text, **fields):
    """Over a connection of its own, which any worker may take."""
    body = {"model": "near/ok", "temperature": 0, "messages": [{"role": "user", "content": text}], **fields}
    with gateway.client() as client:
        response = client.post(CHAT, json=body)
    assert response.status_code == 200, response.text
    return response.headers["x-tidegate-cache"]


def knows(gateway, text, **fields):
    """Whether it has an answer to these very words; it asks nobody for one."""
    body = {"model": "near/ok", "temperature": 0, "messages": [{"role": "user", "content": text}], **fields}
    with gateway.client() as client:
        response = client.post(CHAT, json=body, headers={"cache-control": "only-if-cached"})
    return response.headers.get("x-tidegate-cache") == "hit"


def until_semantic(gateway, **fields):
    """Teach whoever answers, and ask in other words each time, until one of them is a hit."""
    rounds = iter(range(1000))

    def asked():
        ask(gateway, f"{ASKED}{' ' * next(rounds)}", **fields)
        return ask(gateway, f"{ALIKE}{' ' * next(rounds)}", **fields) == "semantic"

    return eventually(asked)


def purge(gateway):
    with gateway.admin() as admin:
        admin.delete("/admin/cache").raise_for_status()


def test_every_worker_learns_and_answers_by_itself(upstream, tmp_path):
    with processes.gateway(tmp_path, config(upstream, tmp_path, server={"workers": 2})) as running:
        for number, _ in enumerate(each(ready(running))):
            assert until_semantic(running, seed=number)
        purge(running)
        for _ in each(running):
            eventually(lambda: ask(running, f"Sorting a Python list, how? {new_id()}", seed=0) == "miss")
        assert "Traceback" not in running.log(), running.log()


def test_two_gateways_share_answers_and_purges_and_outlive_their_redis(upstream, tmp_path):
    valkey = ValkeyServer(tmp_path).start()
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    first, second = (config(upstream, folder, store=valkey.url) for folder in folders)
    try:
        with processes.gateway(folders[0], first) as one, processes.gateway(folders[1], second) as two:
            assert until_semantic(one, seed=1)
            eventually(lambda: knows(two, ASKED, seed=1))
            assert until_semantic(two, seed=1)
            purge(two)
            eventually(lambda: ask(one, f"Sorting a Python list: how? {new_id()}", seed=1) == "miss")
            assert until_semantic(one, seed=2)
            valkey.kill()
            assert until_semantic(one, seed=2), "from its own memory"
            assert until_semantic(two, seed=3), "what is new is learnt without it too"
            for running in (one, two):
                assert "Traceback" not in running.log(), running.log()
    finally:
        valkey.kill()

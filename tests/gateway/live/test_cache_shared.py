"""Two gateways with one Redis between them: what one knows, the other knows."""

import asyncio
import json

import httpx
import pytest

from tests.gateway.live.test_cache import chat, content, settings, state
from tests.kit import answers, processes
from tests.kit.chat import CHAT
from tests.kit.lateness import promised
from tests.kit.processes import CLIENT_KEY, PATIENCE, eventually
from tests.kit.valkey import ValkeyServer


@pytest.fixture(scope="module")
def valkey(tmp_path_factory):
    server = ValkeyServer(tmp_path_factory.mktemp("valkey")).start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    with processes.faulty_upstream(tmp_path_factory.mktemp("upstream")) as running:
        yield running


@pytest.fixture(scope="module")
def pair(upstream, valkey, tmp_path_factory):
    folders = [tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")]
    configs = [settings(upstream, folder, store=valkey.url) for folder in folders]
    with (
        processes.gateway(folders[0], configs[0]) as one,
        processes.gateway(folders[1], configs[1]) as two,
    ):
        yield one, two
        for running in (one, two):
            assert "Traceback" not in running.log(), running.log()
    assert not any((folder / "cache.db").exists() for folder in folders)


def test_what_one_was_told_the_other_knows(pair):
    body = chat()
    with pair[0].client() as one, pair[1].client() as two:
        assert state(one.post(CHAT, json=body)) == "miss"
        eventually(lambda: state(two.post(CHAT, json={**body, "stream": True})) == "hit")


async def test_a_hundred_equal_calls_at_both_are_one_upstream(pair, upstream):
    name = "kept/ok:first=0.7,tokens=17"
    body = chat(name)
    headers = {"authorization": f"Bearer {CLIENT_KEY}"}
    async with httpx.AsyncClient(
        headers=headers, timeout=PATIENCE, limits=httpx.Limits(max_connections=100)
    ) as many:
        asked = [many.post(f"{pair[at % 2].url}{CHAT}", json=body) for at in range(100)]
        responses = await asyncio.gather(*asked)
    assert {content(response) for response in responses} == {answers.text(17)}
    assert sorted(state(response) for response in responses) == ["hit"] * 99 + ["miss"]
    calls = [seen for seen in upstream.seen_all() if json.loads(seen["raw"] or "{}").get("model") == name]
    assert len(calls) == 1


def test_a_purge_reaches_the_other(pair):
    body = chat()
    with pair[0].client() as one, pair[1].client() as two, pair[1].admin() as admin:
        one.post(CHAT, json=body)
        eventually(lambda: state(two.post(CHAT, json=body)) == "hit")
        assert admin.delete("/admin/cache", params={"tenant": "acme"}).status_code == 204
        assert state(two.post(CHAT, json=body, headers={"cache-control": "max-age=3600"})) == "miss"
        another = chat()
        one.post(CHAT, json=another)
        admin.delete("/admin/cache")
        promised(lambda: state(one.post(CHAT, json=another)) == "miss", within=2)


def test_without_redis_calls_are_answered_all_the_same(pair, valkey):
    """Last: it takes the server away."""
    body = chat()
    with pair[0].client() as one:
        assert state(one.post(CHAT, json=body)) == "miss"
        valkey.kill()
        assert state(one.post(CHAT, json=body)) == "hit", "from its own memory"
        cold = chat()
        assert [state(one.post(CHAT, json=cold)) for _ in range(2)] == ["miss", "hit"]

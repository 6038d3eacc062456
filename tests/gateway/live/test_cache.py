"""The cache as clients and operators meet it: one gateway, one upstream, real sockets."""

import asyncio
import gzip
import json
import time

import httpx
import pytest

from tests.kit import answers, processes
from tests.kit.chat import CHAT, messages_of, new_id, text_of
from tests.kit.lateness import promised
from tests.kit.processes import CLIENT_KEY, PATIENCE, eventually
from tests.kit.workers import each, ready

OTHER_KEY = "tg-test-other-tenant-key-0123456789"
KEYS = [
    {"name": "client", "key": CLIENT_KEY, "tenant": "acme"},
    {"name": "other", "key": OTHER_KEY, "tenant": "other"},
]
MODELS = {
    "kept/*": {"route": ["up/*"], "retries": {"attempts": 1}, "cache": {"exact": "1h"}},
    "brief/*": {
        "route": ["up/*"],
        "retries": {"attempts": 1},
        "cache": {"exact": "1s", "stale_while_revalidate": "0s"},
    },
    "all/*": {"route": ["up/*"], "cache": {"when": "always", "share": "all"}},
    "paced/*": {"route": ["up/*"], "cache": {"replay": "paced"}},
}


def settings(upstream, folder, *, workers=1, **sections):
    server = {"ping": "10s", "workers": workers}
    sections = {
        "server": server,
        "models": MODELS,
        "keys": KEYS,
        "cache": {"path": str(folder / "cache.db")},
        **sections,
    }
    return processes.settings(upstream.url, folder / "keys.db", **sections)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    with processes.faulty_upstream(tmp_path_factory.mktemp("upstream")) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(upstream, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    with processes.gateway(folder, settings(upstream, folder)) as running:
        yield running
        assert "Traceback" not in running.log(), running.log()


@pytest.fixture
def client(gateway):
    with gateway.client() as opened:
        yield opened


def chat(name="kept/ok", **more):
    """A call that nobody made before, unless ``messages`` says which."""
    messages = [{"role": "user", "content": new_id()}]
    return {"model": name, "messages": messages, "temperature": 0, **more}


def state(response):
    assert response.status_code == 200, response.text
    return response.headers["x-tidegate-cache"]


def content(response):
    if response.headers["content-type"].startswith("text/event-stream"):
        return text_of(messages_of(response.text))
    return response.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("then", [False, True])
def test_either_way_of_asking_fills_and_either_is_answered(client, upstream, first, then):
    body = chat()
    began = time.monotonic()
    asked = client.post(CHAT, json={**body, "stream": first})
    again = client.post(CHAT, json={**body, "stream": then})
    took = time.monotonic() - began
    assert (state(asked), state(again)) == ("miss", "hit")
    assert content(asked) == content(again) == answers.text(12)
    assert 0 <= int(again.headers["age"]) <= took
    assert "age" not in asked.headers
    assert again.headers["x-tidegate-cache-key"] == asked.headers["x-tidegate-cache-key"]
    assert (asked.headers["x-tidegate-attempts"], again.headers["x-tidegate-attempts"]) == ("1", "0")
    assert again.headers["x-tidegate-upstream"] == "up"


def test_a_replayed_stream_tells_usage_only_to_who_asks(client):
    body = chat()
    client.post(CHAT, json=body)
    plain = client.post(CHAT, json={**body, "stream": True})
    asking = client.post(CHAT, json={**body, "stream": True, "stream_options": {"include_usage": True}})
    assert messages_of(plain.text)[-1] == messages_of(asking.text)[-1] == "[DONE]"
    assert "usage" not in plain.text
    last = json.loads(messages_of(asking.text)[-2])
    assert (last["choices"], last["usage"]) == ([], answers.usage(12))


def test_a_paced_replay_comes_in_words(client):
    body = chat("paced/ok")
    whole = client.post(CHAT, json=body)
    replayed = client.post(CHAT, json={**body, "stream": True})
    assert content(replayed) == content(whole)
    assert len(messages_of(replayed.text)) > 10


def test_completions_and_embeddings(client):
    for path, body in (
        ("/v1/completions", {"prompt": new_id(), "temperature": 0}),
        ("/v1/embeddings", {"input": [new_id(), "b"]}),
    ):
        first = client.post(path, json={"model": "kept/ok", **body})
        again = client.post(path, json={"model": "kept/ok", **body})
        assert (state(first), state(again)) == ("miss", "hit")
        assert first.content == again.content


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hundred_equal_calls_at_once_are_one_upstream(gateway, upstream, stream):
    name = f"kept/ok:first=0.5,gap=0.02,tokens={13 + stream}"
    body = chat(name, stream=stream)
    headers = {"authorization": f"Bearer {CLIENT_KEY}"}
    limits = httpx.Limits(max_connections=100)
    async with httpx.AsyncClient(
        base_url=gateway.url, headers=headers, timeout=PATIENCE, limits=limits
    ) as many:
        responses = await asyncio.gather(*(many.post(CHAT, json=body) for _ in range(100)))
    assert {content(response) for response in responses} == {answers.text(13 + stream)}
    assert sorted(state(response) for response in responses) == ["hit"] * 99 + ["miss"]
    asked = [seen for seen in upstream.seen_all() if json.loads(seen["raw"] or "{}").get("model") == name]
    assert len(asked) == 1


def test_one_tenant_never_sees_what_another_was_told(gateway, client):
    body = chat()
    assert state(client.post(CHAT, json=body)) == "miss"
    with gateway.client(OTHER_KEY) as other:
        assert state(other.post(CHAT, json=body)) == "miss"
        assert state(other.post(CHAT, json=body)) == "hit"


def test_unless_the_route_says_that_all_share(gateway, client):
    body = chat("all/ok", temperature=1)
    assert state(client.post(CHAT, json=body)) == "miss"
    with gateway.client(OTHER_KEY) as other:
        assert state(other.post(CHAT, json=body)) == "hit"


def test_what_clients_say_to_the_cache(client):
    body = chat()

    def ask(control):
        return client.post(CHAT, json=body, headers={"cache-control": control})

    missing = ask("only-if-cached")
    assert missing.status_code == 504
    assert missing.json()["error"]["code"] == "not_cached"
    assert missing.headers["x-should-retry"] == "false"
    states = ["no-store", "max-age=60", "only-if-cached", "no-cache", "max-age=0", ""]
    expected = ["bypass", "miss", "hit", "miss", "miss", "hit"]
    assert [state(ask(control)) for control in states] == expected


def test_what_samples_passes_by(client):
    body = chat(temperature=0.7)
    assert [state(client.post(CHAT, json=body)) for _ in range(2)] == ["bypass", "bypass"]


def test_models_without_a_cache_say_nothing_of_one(gateway, tmp_path, upstream):
    config = settings(upstream, tmp_path, models={"plain": {"route": ["up/fake/ok"]}})
    with processes.gateway(tmp_path, config) as running, running.client() as client:
        for _ in range(2):
            response = client.post(CHAT, json=chat("plain"))
            assert response.status_code == 200
            assert "x-tidegate-cache" not in response.headers
    assert not (tmp_path / "cache.db").exists()


def test_a_hit_costs_no_tokens_and_says_so_in_the_log(gateway, client):
    body, identity = chat(), new_id()
    client.post(CHAT, json=body)
    client.post(CHAT, json=body, headers={"x-request-id": identity})
    (line,) = eventually(lambda: [line for line in gateway.access_log() if line["request_id"] == identity])
    assert line["cache"] == "hit"
    assert line["attempts"] == []
    assert "output_tokens" not in line


def warmed(client, count, name="brief/ok"):
    bodies = [chat(name) for _ in range(count)]
    assert [state(client.post(CHAT, json=body)) for body in bodies] == ["miss"] * count
    return bodies


def held(admin):
    """How many answers each tier holds."""
    return {tier["tier"]: tier["entries"] for tier in admin.get("/admin/cache").json()["tiers"]}


def test_in_a_total_outage_every_warm_call_is_answered_and_says_so(tmp_path):
    with processes.faulty_upstream(tmp_path) as doomed:
        config = settings(doomed, tmp_path)
        with processes.gateway(tmp_path, config) as running, running.client() as client:
            bodies = warmed(client, 20)
            eventually(lambda: state(client.post(CHAT, json=bodies[0])) == "miss")
            doomed.popen.kill()
            doomed.popen.wait()

            def outage():
                return [
                    client.post(CHAT, json={**body, "stream": bool(at % 2)}) for at, body in enumerate(bodies)
                ]

            eventually(lambda: state(client.post(CHAT, json=bodies[0])) == "stale")
            responses = outage()
            assert [state(response) for response in responses] == ["stale"] * 20
            assert {content(response) for response in responses} == {answers.text(12)}
            cold = client.post(CHAT, json=chat("brief/ok"))
            assert cold.status_code in {502, 503}


def test_a_restart_keeps_what_was_cached(upstream, tmp_path):
    body = chat()
    for expected in ("miss", "hit"):
        with processes.gateway(tmp_path, settings(upstream, tmp_path)) as running, running.client() as client:
            assert state(client.post(CHAT, json=body)) == expected


def test_an_operator_sees_and_purges(gateway, client):
    with gateway.admin() as admin:
        kept, brief, other = chat(), chat("all/ok"), chat()
        for body in (kept, brief, other):
            client.post(CHAT, json=body)
        key = client.post(CHAT, json=kept).headers["x-tidegate-cache-key"]

        def shown():
            view = admin.get("/admin/cache").json()
            return view if view["tiers"][0]["entries"] else None

        view = eventually(shown)
        models = {model["model"]: model for model in view["models"]}
        assert models["kept/*"]["hit"] > 0
        assert 0 < models["kept/*"]["hit_rate"] < 1
        assert {tier["tier"] for tier in view["tiers"]} == {"memory", "disk"}

        def purge(**what):
            response = admin.delete("/admin/cache", params=what)
            assert response.status_code == 204, response.text

        def states():
            return [state(client.post(CHAT, json=body)) for body in (kept, brief, other)]

        purge(key=key)
        assert states() == ["miss", "hit", "hit"]
        purge(model="all/ok")
        assert states() == ["hit", "miss", "hit"]
        purge(tenant="other")
        assert states() == ["hit", "hit", "hit"]
        purge(tenant="acme")
        assert states() == ["miss", "hit", "miss"], "what all share is no tenant's"
        purge()
        assert states() == ["miss", "miss", "miss"]
        assert admin.delete("/admin/cache", params={"key": "x"}).status_code == 400
        entries = admin.get("/admin/audit").json()
        assert "purge" in json.dumps(entries)


def test_a_purge_reaches_every_worker_within_two_seconds(upstream, tmp_path):
    config = settings(upstream, tmp_path, workers=2)
    with processes.gateway(tmp_path, config) as running:
        ready(running)
        bodies = [chat() for _ in range(10)]

        def kept():
            """How many of the answers a new connection's worker has."""
            with running.client() as client:
                only = {"cache-control": "only-if-cached"}
                asked = [client.post(CHAT, json=body, headers=only).status_code for body in bodies]
            assert set(asked) <= {200, 504}
            return asked.count(200)

        with running.client() as client:
            assert [state(client.post(CHAT, json=body)) for body in bodies] == ["miss"] * 10
        with running.admin() as admin:
            eventually(lambda: held(admin)["disk"] == 10)  # so that nothing is left to write
            for _ in each(running):
                eventually(lambda: kept() == 10)  # in its own memory too from now on
            admin.delete("/admin/cache").raise_for_status()
        for _ in each(running):
            promised(lambda: kept() == 0, within=2)


def test_bodies_are_compressed_for_who_asks(gateway):
    body = {"model": "kept/ok", "input": [str(number) for number in range(100)]}
    headers = {"authorization": f"Bearer {CLIENT_KEY}", "accept-encoding": "gzip"}
    with httpx.Client(base_url=gateway.url, timeout=PATIENCE) as client:
        with client.stream("POST", "/v1/embeddings", json=body, headers=headers) as response:
            raw = b"".join(response.iter_raw())
        assert response.headers["content-encoding"] == "gzip"
        assert len(json.loads(gzip.decompress(raw))["data"]) == 100
        stream = {**chat(), "stream": True}
        with client.stream("POST", CHAT, json=stream, headers=headers) as response:
            assert "content-encoding" not in response.headers
        asked = {**headers, "x-tidegate-compress": "stream"}
        with client.stream("POST", CHAT, json=stream, headers=asked) as response:
            text = response.read().decode()
        assert response.headers["content-encoding"] == "gzip"
        assert text_of(messages_of(text)) == answers.text(12)

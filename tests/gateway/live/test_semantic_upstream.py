"""Vectors from an upstream's /v1/embeddings: whose bill they are, and what happens when it is away."""

import json

import pytest

from tests.kit import processes
from tests.kit.chat import CHAT, new_id
from tests.kit.processes import eventually

EMBEDDER = "embed/ok"
BUSY = 'tidegate_cache_semantic_lookups_total{model="near/*",result="busy"}'
SEMANTIC = {"semantic": {"delta": "90%", "verify": "0%"}}


def config(upstream, folder, **cache):
    return processes.settings(
        upstream.url,
        folder / "keys.db",
        models={"near/*": {"route": ["up/*"], "cache": SEMANTIC}},
        cache={"path": str(folder / "cache.db"), "embeddings": f"up/{EMBEDDER}", **cache},
    )


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    with processes.faulty_upstream(tmp_path_factory.mktemp("upstream")) as running:
        yield running


class Asking:
    """A gateway whose vectors come from the upstream, as it is asked."""

    def __init__(self, gateway):
        self.gateway = gateway

    def ask(self, text):
        body = {"model": "near/ok", "temperature": 0, "messages": [{"role": "user", "content": text}]}
        identity = new_id()
        with self.gateway.client() as client:
            response = client.post(CHAT, json=body, headers={"x-request-id": identity})
        assert response.status_code == 200, response.text
        return response.headers["x-tidegate-cache"], identity

    def rows(self, identity):
        with self.gateway.admin() as admin:
            return admin.get("/admin/usage/requests", params={"request_id": identity}).json()

    def entered(self, identity, count):
        """Its rows once there are so many."""
        rows = self.rows(identity)
        return rows if len(rows) >= count else None

    def metric(self, series):
        with self.gateway.client() as client:
            lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(series))


@pytest.fixture(scope="module")
def launched(upstream, tmp_path_factory):
    """One whose calls wait for their vectors, as long as a busy machine takes."""
    folder = tmp_path_factory.mktemp("gateway")
    with processes.gateway(folder, config(upstream, folder, embeddings_timeout="20s")) as running:
        yield Asking(running)
        assert "Traceback" not in running.log(), running.log()


def embeddings(upstream):
    return [seen for seen in upstream.seen_all() if seen["path"].endswith("/embeddings")]


def test_the_vector_of_a_prompt_is_on_the_bill_of_who_asked(launched):
    state, identity = launched.ask("How do I sort a list in Python?")
    assert state == "miss"
    rows = eventually(lambda: launched.entered(identity, 2))
    extra = [row for row in rows if row["operation"] == "embeddings"]
    assert [(row["kind"], row["tenant"], row["served_model"]) for row in extra] == [
        ("extra", "acme", EMBEDDER)
    ]
    assert extra[0]["input_tokens"] > 0
    assert [row["operation"] for row in rows if row["kind"] != "extra"] == ["chat/completions"]
    assert launched.metric('tidegate_cache_embeddings_total{model="near/*",outcome="ok"}') >= 1


def test_vectors_find_answers(launched):
    launched.ask("How do I sort a list in Python?")
    eventually(lambda: launched.ask(f"What's the way to sort a Python list?{new_id()[-1]}")[0] == "semantic")


def test_a_slow_embedder_holds_no_call_up_until_it_answers(upstream, tmp_path):
    """Its answer is still open when the calls have theirs; and it is asked one thing at a time."""
    with processes.gateway(tmp_path, config(upstream, tmp_path)) as running:
        asking = Asking(running)
        upstream.behave(EMBEDDER, "silence")
        before = len(embeddings(upstream))
        for number in range(5):
            assert asking.ask(f"slow {number}")[0] == "miss"
            assert embeddings(upstream)[-1]["end"] is None
        assert len(embeddings(upstream)) == before + 1
        upstream.behave(EMBEDDER, None)
        number = iter(range(1000))
        eventually(lambda: asking.ask(f"the same thing{' ' * next(number)}")[0] == "semantic")
        assert "Traceback" not in running.log(), running.log()


def test_an_embedder_that_is_not_there_at_all(upstream, tmp_path):
    settings = config(upstream, tmp_path, embeddings="gone/any")
    settings["providers"]["gone"] = {
        "preset": "vllm",
        "base_url": "http://127.0.0.1:9/v1",
        "api_key": "sk-none",
    }
    with processes.gateway(tmp_path, settings) as running, running.client() as client:
        for number in range(5):
            body = {
                "model": "near/ok",
                "temperature": 0,
                "messages": [{"role": "user", "content": f"gone {number}"}],
            }
            assert client.post(CHAT, json=body).headers["x-tidegate-cache"] == "miss"
        warnings = [line for line in running.log().splitlines() if "no embeddings from any" in line]
        assert len(warnings) == 1, json.dumps(warnings)


def test_without_vectors_calls_are_answered_as_ever(launched, upstream):
    """Last: the breaker of the failing upstream opens."""
    before = launched.metric(BUSY)
    upstream.behave(EMBEDDER, "status:code=500")
    for number in range(8):
        assert launched.ask(f"question {number}")[0] == "miss"
    assert launched.metric(BUSY) == before + 8

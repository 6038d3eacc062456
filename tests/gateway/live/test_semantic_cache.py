"""The semantic cache as clients meet it: the official SDK, one gateway, the bundled model of embeddings."""

import itertools
import json
import zlib

import openai
import pytest

from tests.kit import answers, processes
from tests.kit.processes import CLIENT_KEY, eventually

OTHER_KEY = "tg-test-other-tenant-key-0123456789"
KEYS = [
    {"name": "client", "key": CLIENT_KEY, "tenant": "acme"},
    {"name": "other", "key": OTHER_KEY, "tenant": "other"},
]
# So large a delta lets an answer pass at the first look; the share of wrong ones is tested elsewhere.
LENIENT = {"delta": "90%", "verify": "0%"}
MODELS = {
    "near/*": {"route": ["up/*"], "cache": {"semantic": LENIENT}},
    "checked/*": {"route": ["up/*"], "cache": {"semantic": {**LENIENT, "verify": "100%"}}},
    "strict/*": {"route": ["up/*"], "cache": {"semantic": {"delta": "1%"}}},
    "off/*": {"route": ["up/*"], "cache": {"semantic": "off"}},
}
ASKED = "How do I sort a list in Python?"
ALIKE = "What's the way to sort a Python list?"


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    with processes.faulty_upstream(tmp_path_factory.mktemp("upstream")) as running:
        yield running


def config(upstream, folder, **cache):
    return processes.settings(
        upstream.url,
        folder / "keys.db",
        models=MODELS,
        keys=KEYS,
        cache={"path": str(folder / "cache.db"), "embeddings_timeout": "20s", **cache},
    )


@pytest.fixture(scope="module")
def gateway(upstream, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    with processes.gateway(folder, config(upstream, folder)) as running:
        yield running
        assert "Traceback" not in running.log(), running.log()


@pytest.fixture
def ask(gateway):
    """Ask through the SDK: the state, the similarity and the text."""

    def asked(text, model="near/ok", key=CLIENT_KEY, **more):
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
            raw = client.chat.completions.with_raw_response.create(
                model=model, messages=[{"role": "user", "content": text}], temperature=0, **more
            )
        told = raw.parse().choices[0].message.content
        return raw.headers["x-tidegate-cache"], raw.headers.get("x-tidegate-similarity"), told

    return asked


def learnt(ask, text, **more):
    """Ask for the first time. What was answered gets into the index behind the reply."""
    assert ask(text, **more)[0] == "miss"


def until_semantic(ask, text, **more):
    """Each round asks in other words, since an upstream's answer makes the same words a hit."""
    rounds = itertools.count()

    def found():
        told = ask(f"{text}{' ' * next(rounds)}", **more)
        return told if told[0] == "semantic" else None

    return eventually(found)


def test_a_prompt_that_means_the_same_gets_its_answer(ask):
    learnt(ask, ASKED)
    state, similarity, text = until_semantic(ask, ALIKE)
    assert state == "semantic"
    assert 0.8 < float(similarity) < 1
    assert text == answers.text(12)


def test_a_stream_is_answered_too(gateway, ask):
    learnt(ask, ASKED, seed=1)
    until_semantic(ask, ALIKE, seed=1)
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=CLIENT_KEY) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="near/ok",
            messages=[{"role": "user", "content": "Sorting a list in Python: how is it done?"}],
            temperature=0,
            seed=1,
            stream=True,
        )
        parts = [chunk.choices[0].delta.content or "" for chunk in raw.parse() if chunk.choices]
    assert raw.headers["x-tidegate-cache"] == "semantic"
    assert "".join(parts) == answers.text(12)


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("How do I sort the first 3 of a list in Python?", {}),
        ("How do I not sort a list in Python?", {}),
        ("How do I sort a list in Rust?", {}),
        ("How do I bake bread?", {}),
        (ALIKE, {"response_format": {"type": "json_object"}}),
        (ALIKE, {"max_tokens": 7}),
        (ALIKE, {"model": "near/ok:tokens=12"}),
        (ALIKE, {"model": "off/ok"}),
        (ALIKE, {"model": "strict/ok"}),
    ],
)
def test_what_is_another_question_is_asked_upstream(ask, text, more):
    seed = zlib.crc32(f"{text}{more}".encode()) >> 1
    learnt(ask, ASKED, seed=seed)
    until_semantic(ask, ALIKE, seed=seed)
    assert ask(text, **{"seed": seed, **more})[:2] == ("miss", None)


def test_one_tenant_never_gets_what_another_was_told(ask):
    learnt(ask, ASKED, seed=2)
    until_semantic(ask, ALIKE, seed=2)
    assert ask(ALIKE, key=OTHER_KEY, seed=2)[0] == "miss"


def test_some_hits_are_verified_beside_the_reply(gateway, upstream, ask):
    learnt(ask, ASKED, model="checked/ok")
    until_semantic(ask, ALIKE, model="checked/ok")
    with gateway.client() as client:
        eventually(
            lambda: (
                'tidegate_cache_semantic_verified_total{model="checked/*",verdict="same",what="hit"} 1.0'
                in client.get("/metrics").text
            )
        )
    with gateway.admin() as admin:
        books = {"tenant": "acme", "model": "checked/ok"}
        rows = eventually(
            lambda: [
                row
                for row in admin.get("/admin/usage/requests", params=books).json()
                if row["kind"] == "extra"
            ]
        )
        hits = [row for row in admin.get("/admin/usage/requests", params=books).json() if row["cache_hit"]]
    assert {row["request_id"] for row in rows} <= {row["request_id"] for row in hits}
    assert all(row["output_tokens"] > 0 and row["requests"] == 0 for row in rows)
    asked = [json.loads(seen["raw"] or "{}") for seen in upstream.seen_all()]
    assert sum(body.get("messages", [{}])[0].get("content", "").strip() == ALIKE for body in asked) >= 1


def test_a_purge_forgets_prompts_too(gateway, ask):
    learnt(ask, ASKED, seed=3)
    until_semantic(ask, ALIKE, seed=3)
    with gateway.admin() as admin:
        assert admin.delete("/admin/cache").status_code == 204
    assert ask("Sorting a list in Python: how is it done?", seed=3)[0] == "miss"

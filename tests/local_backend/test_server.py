"""The server over real sockets, with the official SDK and the real model."""

import json

import openai
import pytest
from openai.types import CompletionUsage

from tests.kit.processes import eventually
from tests.local_backend.server_process import ServerProcess

MODEL = "smollm2-135m-moe"
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client(real_server: ServerProcess) -> openai.OpenAI:
    return real_server.client()


def test_a_chat_answers_sensibly_with_exact_usage(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=FRANCE, temperature=0, max_tokens=30)
    choice = answer.choices[0]
    assert "Paris" in (choice.message.content or "")
    assert (choice.finish_reason, choice.message.role, answer.model) == ("stop", "assistant", MODEL)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 37
    assert answer.usage.completion_tokens == 7
    assert answer.usage.total_tokens == 44


def tokens_of(usage: CompletionUsage | None) -> tuple[int, int, int]:
    assert usage is not None
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens


def test_a_stream_says_the_same_and_ends_with_usage(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=FRANCE, temperature=0, max_tokens=5)
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=FRANCE,
            temperature=0,
            max_tokens=5,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].choices == []
    assert tokens_of(chunks[-1].usage) == tokens_of(whole.usage)
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_raw_stream_is_sse_with_done(real_server: ServerProcess) -> None:
    body = {"model": MODEL, "messages": FRANCE, "max_tokens": 2, "stream": True}
    answer = real_server.post("/v1/chat/completions", body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    assert all("usage" not in json.loads(event.removeprefix("data: ")) for event in events[:-1])


def test_logprobs_belong_to_the_tokens(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=FRANCE, temperature=0, max_tokens=6, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(entry.token for entry in logprobs.content) == answer.choices[0].message.content
    for entry in logprobs.content:
        assert len(entry.top_logprobs) == 3
        assert entry.logprob == max(other.logprob for other in entry.top_logprobs)
        assert bytes(entry.bytes or []).decode() == entry.token


def test_seeds_and_choices(client: openai.OpenAI) -> None:
    def ask(seed: int) -> list[str | None]:
        answer = client.chat.completions.create(
            model=MODEL, messages=FRANCE, temperature=1.5, seed=seed, n=3, max_tokens=8
        )
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        return [choice.message.content for choice in answer.choices]

    first = ask(1)
    assert first == ask(1) != ask(2)
    assert len(set(first)) > 1


def test_stop_strings(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=FRANCE, temperature=0, stop=["of France"])
    assert answer.choices[0].message.content == "The capital "
    assert answer.choices[0].finish_reason == "stop"


def test_completions_take_texts_and_token_ids(client: openai.OpenAI) -> None:
    texts = client.completions.create(
        model=MODEL, prompt=["The sky is", "Two and two"], temperature=0, max_tokens=4
    )
    assert [choice.index for choice in texts.choices] == [0, 1]
    assert texts.usage is not None
    assert texts.usage.completion_tokens == 8
    ids = client.completions.create(
        model=MODEL, prompt=[504, 6376, 314], temperature=0, max_tokens=4, logprobs=2
    )
    logprobs = ids.choices[0].logprobs
    assert logprobs is not None
    assert "".join(logprobs.tokens or []) == ids.choices[0].text
    assert (logprobs.text_offset or [])[0] == 0
    streamed = client.completions.create(
        model=MODEL, prompt="The sky is", temperature=0, max_tokens=4, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in streamed) == texts.choices[0].text


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("gpt-4o")
    assert missing.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("change", "status", "param", "code"),
    [
        ({"model": "gpt-4o"}, 404, "model", "model_not_found"),
        ({"temperature": 3}, 400, "temperature", None),
        ({"temperature": "warm"}, 400, "temperature", None),
        ({"messages": []}, 400, "messages", None),
        ({"messages": [{"role": "king", "content": "x"}]}, 400, "messages.0.role", None),
        ({"n": 100}, 400, "n", None),
        ({"top_logprobs": 3}, 400, None, None),
        ({"max_tokens": 9000}, 400, "messages", "context_length_exceeded"),
        (
            {"messages": [{"role": "user", "content": "word " * 9000}]},
            400,
            "messages",
            "context_length_exceeded",
        ),
        ({"logit_bias": {"60000": 1}}, 400, "logit_bias", None),
        ({"logit_bias": {"-1": 1}}, 400, "logit_bias.-1", None),
        ({"response_format": {"type": "xml"}}, 400, "response_format", None),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            400,
            "response_format.json_schema.schema",
            None,
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            400,
            "messages.0.content.0",
            None,
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            400,
            "messages.0.content.0.text",
            None,
        ),
        ({"stop": 5}, 400, "stop", None),
        ({"tool_choice": {"type": "function"}}, 400, "tool_choice.function", None),
    ],
)
def test_wrong_requests_get_openais_errors(
    real_server: ServerProcess, change: dict[str, object], status: int, param: str | None, code: str | None
) -> None:
    answer = real_server.post("/v1/chat/completions", {"model": MODEL, "messages": FRANCE, **change})
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert error["param"] == param


def test_unknown_parameters_and_nulls_are_ignored(real_server: ServerProcess) -> None:
    extra = {
        "max_tokens": 1,
        "n": None,
        "stop": None,
        "user": "me",
        "future": {"x": 1},
        "tools": [],
        "stream": None,
    }
    answer = real_server.post("/v1/chat/completions", {"model": MODEL, "messages": FRANCE, **extra})
    assert answer.status_code == 200, answer.text


def test_junk_is_refused_without_a_traceback(real_server: ServerProcess) -> None:
    for content in (b"{", b"[]", b"\xff\xfe", b'"text"'):
        answer = real_server.post("/v1/chat/completions", content)
        assert answer.status_code == 400
        assert "Traceback" not in answer.text
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert real_server.get("/v1/nothing").json()["error"]["code"] == "unknown_url"
    assert real_server.post("/v1/completions", b" " * (5 << 20)).status_code == 413


def test_metrics_count_tokens(real_server: ServerProcess) -> None:
    name = 'tidegate_local_tokens_total{kind="completion"}'
    before = real_server.metric(name)
    real_server.post(
        "/v1/completions", {"model": MODEL, "prompt": "Once", "max_tokens": 3, "logit_bias": {"2": -100}}
    )
    eventually(lambda: real_server.metric(name) == before + 3)


def test_the_load_says_what_is_free(real_server: ServerProcess) -> None:
    load = real_server.get("/load").json()
    assert set(load) == {
        "running",
        "waiting",
        "capacity",
        "free_blocks",
        "blocks",
        "tokens_per_second",
        "expected_wait_seconds",
    }
    assert (load["running"], load["waiting"], load["capacity"]) == (0, 0, 40)
    assert load["free_blocks"] == load["blocks"] > 100
    assert load["expected_wait_seconds"] == 0


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-tidegate-priority", "high"),
        ("x-tidegate-priority", "1001"),
        ("x-tidegate-priority", "1" * 5000),
        ("x-tidegate-tenant", "a" * 300),
    ],
)
def test_headers_that_cannot_be_meant_are_errors(real_server: ServerProcess, header: str, value: str) -> None:
    body = {"model": MODEL, "prompt": "Once", "max_tokens": 1}
    answer = real_server.post("/v1/completions", body, headers={header: value})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == header


def test_a_tenants_prompt_is_found_again_by_that_tenant_alone(real_server: ServerProcess) -> None:
    name = "tidegate_local_prefix_hit_tokens_total"
    body = {"model": MODEL, "prompt": "The story of the river. " * 20, "max_tokens": 1}

    def hits(tenant: str) -> tuple[float, int]:
        before = real_server.metric(name)
        headers = {"x-tidegate-tenant": tenant, "x-tidegate-priority": "-5"}
        answer = real_server.post("/v1/completions", body, headers=headers)
        assert answer.status_code == 200
        told = answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
        return real_server.metric(name) - before, told

    assert hits("a") == (0, 0)
    assert hits("b") == (0, 0)
    assert hits("a") == (64, 64)

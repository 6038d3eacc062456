"""What the gateway adds, by the official Python SDK: keys, faults and everything that passes through."""

import openai
import pytest

from tests.kit import answers
from tests.kit.chat import new_id
from tests.kit.lateness import Lateness
from tests.kit.processes import ADMIN_KEY

MESSAGES = [{"role": "user", "content": "Say hello."}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "tide_table",
            "description": "Tides of a port.",
            "parameters": {"type": "object", "properties": {"port": {"type": "string"}}},
        },
    }
]


@pytest.fixture
def client(gateway):
    with gateway.client() as opened:
        yield opened


def ask(client, model, **options):
    return client.chat.completions.create(model=f"fake/{model}", messages=MESSAGES, **options)


EXOTIC = {
    "temperature": 0.7,
    "top_k": 40,
    "min_p": 0.05,
    "unheard_of": {"deep": [1, 2.5, None, True, "\u6f6e \U0001f30a"], "big": 2**53, "empty": {}},
    "thinking": {"type": "enabled"},
    "provider": {"order": ["a", "b"]},
    "logit_bias": {"50256": -100},
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
    "tools": TOOLS,
    "tool_choice": {"type": "function", "function": {"name": "tide_table"}},
    "user": "somebody",
    "zero": 0,
    "nothing": None,
}


def test_every_parameter_reaches_the_upstream_untouched(client, upstream):
    identity = new_id()
    ask(client, "ok", extra_body=EXOTIC, extra_headers={"x-request-id": identity})
    assert upstream.body(identity) == {"model": "fake/ok", "messages": MESSAGES, **EXOTIC}


def test_messages_of_every_kind_reach_the_upstream_untouched(client, upstream):
    identity = new_id()
    messages = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "\u6f6e"},
                {"type": "image_url", "image_url": {"url": "data:,"}},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": [answers.TOOL_CALL]},
        {"role": "tool", "tool_call_id": "call_tide", "content": "{}"},
        {"role": "assistant", "content": "so", "reasoning_content": "hm", "name": "x"},
    ]
    client.chat.completions.create(
        model="fake/ok", messages=messages, extra_headers={"x-request-id": identity}
    )
    assert upstream.body(identity)["messages"] == messages


def test_the_beginning_of_an_answer_is_spelled_in_the_providers_way(client, upstream):
    identity = new_id()
    begun = {"role": "assistant", "content": answers.pieces(1)[0], "prefix": True}
    answer = client.chat.completions.create(
        model="fake/ok", messages=[*MESSAGES, begun], extra_headers={"x-request-id": identity}
    )
    body = upstream.body(identity)
    assert body["messages"][-1] == {"role": "assistant", "content": begun["content"]}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    assert begun["content"] + answer.choices[0].message.content == answers.text(12)


def test_a_stream_adds_only_the_wish_for_usage(client, upstream):
    identity = new_id()
    list(ask(client, "ok", stream=True, extra_body=EXOTIC, extra_headers={"x-request-id": identity}))
    expected = {"model": "fake/ok", "messages": MESSAGES, "stream": True, **EXOTIC}
    assert upstream.body(identity) == {**expected, "stream_options": {"include_usage": True}}


def test_what_the_upstream_sees_of_the_client(client, upstream, gateway):
    identity = new_id()
    ask(client, "ok", extra_headers={"x-request-id": identity, "x-secret": "mine", "cookie": "a=b"})
    (seen,) = upstream.seen(identity)
    headers = seen["headers"]
    assert headers["authorization"] == "Bearer sk-test-upstream-key-0123456789"
    assert headers["user-agent"] == "tidegate"
    assert not {"x-secret", "cookie", "x-stainless-lang"} & set(headers)
    assert gateway.api_key not in str(headers)


def test_a_route_may_name_another_model(client, upstream):
    identity = new_id()
    response = client.chat.completions.with_raw_response.create(
        model="plain", messages=MESSAGES, extra_headers={"x-request-id": identity}
    )
    assert upstream.body(identity)["model"] == "fake/ok"
    assert response.headers["x-tidegate-model"] == "fake/ok"


def test_tools(client):
    answer = ask(client, "tools", tools=TOOLS)
    (call,) = answer.choices[0].message.tool_calls
    assert call.model_dump() == answers.TOOL_CALL
    assert answer.choices[0].finish_reason == "tool_calls"
    with client.chat.completions.stream(model="fake/tools", messages=MESSAGES, tools=TOOLS) as stream:
        final = stream.get_final_completion()
    (streamed,) = final.choices[0].message.tool_calls
    assert streamed.function.arguments == answers.TOOL_CALL["function"]["arguments"]


def test_reasoning_content(client):
    thought = "".join(answers.pieces(4))
    assert ask(client, "reasoning").choices[0].message.reasoning_content == thought
    deltas = [chunk.choices[0].delta for chunk in ask(client, "reasoning", stream=True)]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == thought
    assert "".join(delta.content or "" for delta in deltas) == answers.text(8)


def test_embeddings(client, upstream):
    identity = new_id()
    found = client.embeddings.create(
        model="fake/ok",
        input=["a", "b"],
        dimensions=3,
        encoding_format="float",
        extra_headers={"x-request-id": identity},
    )
    assert [item.embedding[0] for item in found.data] == [0.0, 1.0]
    assert found.usage.prompt_tokens == 2
    body = {"model": "fake/ok", "input": ["a", "b"], "dimensions": 3, "encoding_format": "float"}
    assert upstream.body(identity) == body


@pytest.mark.parametrize("key", ["wrong", "sk-test-upstream-key-0123456789"])
def test_a_wrong_key(gateway, key):
    with openai.OpenAI(base_url=gateway.base_url, api_key=key, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            ask(client, "ok")
        assert caught.value.code == "invalid_api_key"
        assert caught.value.request_id
        assert key not in caught.value.message
        with pytest.raises(openai.AuthenticationError):
            client.models.list()


def test_a_key_that_may_not(gateway):
    with (
        openai.OpenAI(base_url=gateway.base_url, api_key=ADMIN_KEY, max_retries=0) as client,
        pytest.raises(openai.PermissionDeniedError),
    ):
        client.models.list()


def test_a_body_that_is_too_large(client):
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, "ok", extra_body={"pad": "x" * 300_000})
    assert (caught.value.status_code, caught.value.code) == (413, "payload_too_large")


ERRORS = [
    ("status:code=400", openai.BadRequestError, None),
    ("status:code=404", openai.NotFoundError, None),
    ("status:code=422", openai.UnprocessableEntityError, None),
    ("status:code=429", openai.RateLimitError, "upstream_throttled"),
    ("status:code=401", openai.InternalServerError, "upstream_key_rejected"),
    ("status:code=500", openai.InternalServerError, "upstream_unavailable"),
    ("status:code=503", openai.InternalServerError, "upstream_busy"),
    ("html", openai.InternalServerError, "upstream_unavailable"),
    ("blank", openai.InternalServerError, "upstream_unavailable"),
    ("reset", openai.InternalServerError, "upstream_unavailable"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "kind", "code"), ERRORS)
def test_an_upstreams_fault_is_an_error_of_its_kind(client, model, kind, code, stream):
    own = f"{model}{',' if ':' in model else ':'}stream={stream}"
    with pytest.raises(kind) as caught:
        ask(client, own, stream=stream)
    assert caught.value.code == code
    assert caught.value.response.headers["x-request-id"]


def test_the_sdk_waits_as_long_as_it_is_told(gateway, upstream):
    identity = new_id()
    with Lateness() as lateness, gateway.client(max_retries=1) as client:
        model = "status:code=429,after=1.2,form=ms,times=1"
        answer = ask(client, model, extra_headers={"x-request-id": identity})
    assert answer.choices[0].message.content == answers.text(12)
    first, second = upstream.seen(identity)
    assert 1.1 <= second["arrived"] - first["arrived"] < 5 + lateness.total


def test_the_sdk_tries_again_where_that_may_help_and_only_there(gateway, upstream):
    helped, hopeless = new_id(), new_id()
    with gateway.client(max_retries=2) as client:
        ask(client, "status:code=500,times=1", extra_headers={"x-request-id": helped})
        with pytest.raises(openai.UnprocessableEntityError):
            ask(client, "status:code=422,hopeless=1", extra_headers={"x-request-id": hopeless})
    assert len(upstream.seen(helped)) == 2
    assert len(upstream.seen(hopeless)) == 1


@pytest.mark.parametrize(
    "model",
    ["cut:how=rst,sdk=1", "cut:how=fin,sdk=1", "cut:how=clean,sdk=1", "error_chunk:sdk=1", "malformed:sdk=1"],
)
def test_a_stream_that_breaks_raises(client, model):
    text = ""
    with pytest.raises(openai.APIError) as caught:  # noqa: PT012 - what came before it counts
        for chunk in ask(client, model, stream=True):
            text += chunk.choices[0].delta.content or ""
    assert answers.text(60).startswith(text)
    assert caught.value.code == "stream_interrupted"


def test_a_first_token_that_keeps_the_client_waiting(client):
    chunks = list(ask(client, "ok:first=0.7,sdk=1", stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answers.text(12)

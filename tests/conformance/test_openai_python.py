"""What holds for every OpenAI-compatible server, by the official Python SDK."""

import httpx
import openai
import pytest

MESSAGES = [{"role": "user", "content": "Say hello."}]
GREEDY = {"temperature": 0, "max_tokens": 12}


def ask(client, server, **options):
    return client.chat.completions.create(model=server.model, messages=MESSAGES, **GREEDY, **options)


def test_a_chat(client, server):
    answer = ask(client, server)
    assert answer.object == "chat.completion"
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason in {"stop", "length"}
    usage = answer.usage
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens == 12
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_streamed_chat_is_the_same_one(client, server):
    chunks = list(ask(client, server, stream=True))
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.usage is None for chunk in chunks)
    assert [chunk.choices[0].finish_reason for chunk in chunks][:-1] == [None] * (len(chunks) - 1)
    whole = ask(client, server)
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    )


def tokens(usage):
    """What it counts; the energy is another each time."""
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens


def test_usage_comes_last_when_it_is_asked_for(client, server):
    chunks = list(ask(client, server, stream=True, stream_options={"include_usage": True}))
    *others, last = chunks
    assert last.choices == []
    assert tokens(last.usage) == tokens(ask(client, server).usage)
    assert all(chunk.usage is None for chunk in others)
    assert all(chunk.choices for chunk in others)


def test_the_stream_helper(client, server):
    with client.chat.completions.stream(model=server.model, messages=MESSAGES, **GREEDY) as stream:
        kinds = {event.type for event in stream}
        try:
            final = stream.get_final_completion()
        except openai.LengthFinishReasonError as error:
            final = error.completion
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.choices[0].message.content == ask(client, server).choices[0].message.content


def test_several_choices(client, server):
    answer = ask(client, server, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    finished = [
        choice.index
        for chunk in ask(client, server, n=2, stream=True)
        for choice in chunk.choices
        if choice.finish_reason
    ]
    assert sorted(finished) == [0, 1]


def test_a_completion_whole_and_streamed(client, server):
    options = {"model": server.model, "prompt": "The tide", **GREEDY}
    whole = client.completions.create(**options)
    assert whole.object == "text_completion"
    assert whole.usage.completion_tokens == 12
    chunks = list(client.completions.create(**options, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


async def test_the_asynchronous_client(server):
    async with openai.AsyncOpenAI(base_url=server.base_url, api_key=server.api_key) as client:
        stream = await ask(client, server, stream=True)
        parts = [chunk.choices[0].delta.content or "" async for chunk in stream]
        whole = await ask(client, server)
    assert "".join(parts) == whole.choices[0].message.content


def test_leaving_a_stream_leaves_the_server_well(client, server):
    with ask(client, server, stream=True) as stream:
        next(iter(stream))
    assert ask(client, server).choices[0].message.content


def test_models(client, server):
    models = client.models.list().data
    assert server.model in {model.id for model in models}
    model = client.models.retrieve(server.model)
    assert (model.id, model.object) == (server.model, "model")
    assert model.created > 1_600_000_000
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("no-such-model")
    assert caught.value.code == "model_not_found"


def test_an_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="no-such-model", messages=MESSAGES)
    error = caught.value
    assert (error.code, error.param, error.type) == ("model_not_found", "model", "invalid_request_error")
    assert "no-such-model" in error.message


WRONG = [
    ({"messages": "hello"}, "messages"),
    ({"messages": []}, "messages"),
    ({"temperature": "hot"}, "temperature"),
    ({"n": "two"}, "n"),
    ({"max_tokens": "many"}, "max_tokens"),
]


@pytest.mark.parametrize(("change", "param"), WRONG)
def test_wrong_values_name_their_field(client, server, change, param):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, server, extra_body=change)
    assert caught.value.param.split(".")[0] == param
    assert caught.value.type == "invalid_request_error"


def test_missing_messages(client, server):
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body={"model": server.model}, cast_to=object)
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("get", "/chat/completions", 405), ("post", "/nope", 404)]
)
def test_wrong_routes(client, method, path, status):
    with pytest.raises(openai.APIStatusError) as caught:
        getattr(client, method)(path, cast_to=object)
    assert caught.value.status_code == status
    assert caught.value.type == "invalid_request_error"


def test_malformed_json(server):
    response = httpx.post(
        f"{server.base_url}/chat/completions",
        content=b'{"model": ',
        headers={"authorization": f"Bearer {server.api_key}", "content-type": "application/json"},
    )
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"

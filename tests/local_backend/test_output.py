"""What the API can ask of an answer, with the official SDK and the real model."""

import json
import re
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.local_backend.server_process import ServerProcess

MODEL = "smollm2-135m-moe"
OSLO = [{"role": "user", "content": "What is the weather in Oslo?"}]
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
PARIS = [{"role": "user", "content": "Give me JSON with name, country and population of the city Paris."}]
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
TIME = {"type": "function", "function": {"name": "get_time"}}
ONE_CALL: dict[str, Any] = {"tools": [WEATHER, TIME], "tool_choice": "required", "parallel_tool_calls": False}


class City(BaseModel):
    name: str
    country: str
    population: int


@pytest.fixture(scope="module")
def client(real_server: ServerProcess) -> openai.OpenAI:
    return real_server.client()


def ask(client: openai.OpenAI, messages: list[Any] = FRANCE, **options: Any) -> Any:
    return client.chat.completions.create(
        model=MODEL, messages=messages, **{"temperature": 0, "max_tokens": 100, **options}
    )


def test_json_of_a_schema(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL, messages=PARIS, response_format=City, temperature=0, max_tokens=100
    )
    city = answer.choices[0].message.parsed
    assert city is not None
    assert city.name == "Paris"
    assert answer.choices[0].finish_reason == "stop"


def test_any_json_object(client: openai.OpenAI) -> None:
    answer = ask(client, PARIS, response_format={"type": "json_object"}, stop=["}"], stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in answer)
    assert text.startswith('{"')


def test_an_expression_for_chats_and_completions(client: openai.OpenAI) -> None:
    form = {"guided_regex": "[0-9]{4}-[0-9]{2}"}
    assert re.fullmatch(r"\d{4}-\d\d", ask(client, extra_body=form).choices[0].message.content)
    answer = client.completions.create(model=MODEL, prompt="Date: ", max_tokens=20, extra_body=form)
    assert re.fullmatch(r"\d{4}-\d\d", answer.choices[0].text)
    form = {"guided_regex": r"\d{3}-[\d,]{4}"}
    assert re.fullmatch("[0-9]{3}-[0-9,]{4}", ask(client, extra_body=form).choices[0].message.content)


def test_a_call_that_must_be_made(client: openai.OpenAI) -> None:
    choice = ask(client, OSLO, **ONE_CALL).choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    (call,) = choice.message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["city"] == "Oslo"
    chunks = [chunk.choices[0] for chunk in ask(client, OSLO, **ONE_CALL, stream=True)]
    deltas = [each for chunk in chunks for each in chunk.delta.tool_calls or []]
    assert "".join(each.function.arguments for each in deltas) == call.function.arguments
    assert [each.function.name for each in deltas if each.id] == ["get_weather"]
    assert chunks[-1].finish_reason == "tool_calls"


def test_a_call_that_max_tokens_cut_is_not_told_as_text(client: openai.OpenAI) -> None:
    for chosen in (1, 2):
        choice = ask(client, OSLO, **ONE_CALL, max_tokens=6, n=chosen).choices[-1]
        assert (choice.finish_reason, choice.message.content, choice.message.tool_calls) == (
            "length",
            "",
            None,
        )
    chunks = [chunk.choices[0] for chunk in ask(client, OSLO, **ONE_CALL, max_tokens=6, stream=True)]
    assert not any(chunk.delta.content or chunk.delta.tool_calls for chunk in chunks)
    assert chunks[-1].finish_reason == "length"


def test_the_call_that_is_named_and_none(client: openai.OpenAI) -> None:
    named = ask(client, OSLO, tools=[WEATHER, TIME], tool_choice=TIME).choices[0].message.tool_calls
    assert [(call.function.name, call.function.arguments) for call in named] == [("get_time", "{}")]
    silent = ask(client, OSLO, tools=[WEATHER], tool_choice="none", max_tokens=10).choices[0].message
    assert silent.tool_calls is None
    assert silent.content


def test_a_result_is_read(client: openai.OpenAI) -> None:
    call = ask(client, OSLO, **ONE_CALL).choices[0].message
    result = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "Snow, -7 degrees"}
    conversation = [*OSLO, call.model_dump(exclude_none=True), result]
    answer = ask(client, conversation, tools=[WEATHER], max_tokens=30)
    assert answer.choices[0].message.content
    assert answer.usage.prompt_tokens > 250


@pytest.mark.parametrize("cut", [0, 1, 6, 12, 13, 21, 30])
def test_an_answer_goes_on_from_any_cut(client: openai.OpenAI, cut: int) -> None:
    whole = ask(client).choices[0].message.content
    assert whole == "The capital of France is Paris."
    rest = ask(client, [*FRANCE, {"role": "assistant", "content": whole[:cut]}], logprobs=True).choices[0]
    assert whole[:cut] + rest.message.content == whole
    assert "".join(entry.token for entry in rest.logprobs.content).endswith(rest.message.content)


def test_best_of_and_echo(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": MODEL, "prompt": "The sky is", "seed": 3, "max_tokens": 5}
    several = client.completions.create(**options, temperature=1, n=4, logprobs=0)

    def likelihood(choice: Any) -> float:
        return float(sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs))

    best = sorted(several.choices, key=likelihood, reverse=True)[:2]
    answer = client.completions.create(**options, temperature=1, n=2, best_of=4, echo=True)
    assert [choice.text for choice in answer.choices] == ["The sky is" + choice.text for choice in best]
    assert [choice.index for choice in answer.choices] == [0, 1]
    streamed = client.completions.create(**options, echo=True, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed).startswith("The sky is")


def test_embeddings_in_both_encodings(client: openai.OpenAI) -> None:
    texts = ["The cat sat on the mat.", "A kitten lies on the rug.", "Revenue rose by nine percent."]
    vectors = [each.embedding for each in client.embeddings.create(model=MODEL, input=texts).data]
    assert {len(vector) for vector in vectors} == {576}
    assert sum(value * value for value in vectors[0]) == pytest.approx(1, abs=1e-5)

    def likeness(one: list[float], other: list[float]) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True))

    assert likeness(vectors[0], vectors[1]) > likeness(vectors[0], vectors[2])
    plain = client.embeddings.create(model=MODEL, input=texts[0], encoding_format="float", dimensions=576)
    assert plain.data[0].embedding == pytest.approx(vectors[0], abs=1e-6)
    tokens = client.embeddings.create(model=MODEL, input=[[504, 2644], [504]])
    assert tokens.usage.total_tokens == 3
    for wrong in ({"dimensions": 256}, {"input": ""}, {"input": ["a"] * 50}, {"encoding_format": "int8"}):
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(**{"model": MODEL, "input": "a", **wrong})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tools": [WEATHER], "tool_choice": TIME}, "get_time"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER, WEATHER]}, "same name"),
        ({"tools": [{"type": "web_search"}]}, "function"),
        ({"functions": [WEATHER["function"]]}, "use tools"),
        ({"guided_regex": "a("}, "unclosed group"),
        ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "one form"),
        ({"guided_json": {"type": "objct"}}, "objct"),
        ({"top_logprobs": 3}, "top_logprobs needs logprobs to be true"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "image_url"),
    ],
)
def test_what_cannot_be_asked_for_says_why(
    real_server: ServerProcess, change: dict[str, Any], said: str
) -> None:
    answer = real_server.post("/v1/chat/completions", {"model": MODEL, "messages": FRANCE, **change})
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": []},
        {"suffix": "x"},
        {"echo": True, "logprobs": 1},
        {"n": 3, "best_of": 2},
        {"best_of": 2, "stream": True},
    ],
)
def test_what_completions_cannot_do_says_so(client: openai.OpenAI, change: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(**{"model": MODEL, "prompt": "x", **change})
    assert next(iter(change)) in refused.value.message or "best_of" in refused.value.message

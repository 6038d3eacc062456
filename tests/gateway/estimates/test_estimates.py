import json
import sys
from pathlib import Path
from random import Random

import pytest

from gateway.estimates import TokenEstimates
from gateway.estimates.vocabularies import count, vocabulary, vocabulary_of
from gateway.settings import ASKED, Model, Target
from policies.service import Attempt, Operation, Usage
from tests.gateway.estimates.labelled import LABELLED
from tests.kit.upstream import make_call

CODE = Path(sys.modules[TokenEstimates.__module__].__file__).parents[1]


def chat(*messages, model="gpt-4o", **body):
    return make_call(model=model, route=model, body={"model": model, "messages": list(messages), **body})


def user(content):
    return {"role": "user", "content": content}


def estimate(call):
    return TokenEstimates()(call)


def completion(prompt, **body):
    return make_call(operation=Operation.COMPLETION, model="m", body={"prompt": prompt, **body})


def embedding(given):
    return make_call(operation=Operation.EMBEDDING, model="m", body={"input": given})


@pytest.mark.parametrize("language", LABELLED)
def test_the_vocabularies_count_as_openai_counts(language):
    text, newest, older = LABELLED[language]
    assert (vocabulary("o200k_base")(text), vocabulary("cl100k_base")(text)) == (newest, older)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o-mini", "o200k_base"),
        ("gpt-4.1", "o200k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("text-embedding-3-small", "cl100k_base"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama3"),
        ("deepseek-ai/DeepSeek-V3", "deepseek_v3"),
        ("Qwen/Qwen3-32B", "qwen3"),
        ("mistral-large-latest", "mistral_v3"),
        ("claude-sonnet-4-5", "o200k_base"),
    ],
)
def test_a_model_is_read_by_its_own_vocabulary(model, name):
    assert vocabulary_of(model) == name


def test_every_vocabulary_that_is_named_exists():
    for name in {
        vocabulary_of(part) for part in ("", "gpt-4", "llama-3", "qwen", "mistral", "glm-4", "kimi")
    }:
        assert vocabulary(name)("one two three") >= 3


def test_a_long_text_is_counted_by_samples():
    whole = "".join(path.read_text() for path in sorted(CODE.rglob("*.py")))
    by = vocabulary("o200k_base")
    assert len(whole) > 100_000
    assert count([whole], by) == pytest.approx(by(whole), rel=0.15)
    assert count([whole[:4096]], by) == by(whole[:4096])


def test_framing_is_openais_recipe():
    text, tokens, _ = LABELLED["English"]
    assert estimate(chat(user(text))).input == tokens + 4 + 3
    assert estimate(chat(user(text), {"role": "assistant", "content": "Yes"})).input == tokens + 1 + 2 * 4 + 3


def test_parts_of_a_message_are_read_each_for_what_it_is():
    nothing = estimate(chat(user(""))).input
    text = [{"type": "text", "text": LABELLED["English"][0]}]
    large = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    small = {"type": "image_url", "image_url": {"url": "https://x.test/y.png", "detail": "low"}}
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 64_000, "format": "wav"}}
    document = {"type": "file", "file": {"file_data": "A" * 4000, "filename": "a.pdf"}}
    for parts, tokens in (
        (text, 37),
        ([large], 765),
        ([small], 85),
        ([sound], 10),
        ([document], 100),
        ([*text, small], 37 + 85),
        ([{"type": "something", "new": 1}, 3, None], 0),
    ):
        assert estimate(chat(user(parts))).input - nothing == tokens


def test_tools_schemas_and_their_calls_are_read():
    plain = estimate(chat(user("hi"))).input
    described = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]
    called = {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"name": "find"}}]}
    schema = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
    assert estimate(chat(user("hi"), tools=described)).input > plain + 10
    assert estimate(chat(user("hi"), response_format=schema)).input > plain + 10
    assert estimate(chat(user("hi"), called)).input > plain + 10


@pytest.mark.parametrize(
    ("call", "tokens"),
    [
        (completion("one two three"), 3),
        (completion(["one", "two three"]), 3),
        (completion([5, 6, 7, 8]), 4),
        (embedding([[5, 6], [7]]), 3),
        (embedding("one two three"), 3),
        (embedding([]), 0),
    ],
)
def test_prompts_and_inputs_are_texts_or_the_ids_of_tokens(call, tokens):
    assert estimate(call).input == tokens


@pytest.mark.parametrize(
    ("call", "output", "asked"),
    [
        (chat(user("hi")), 1024, None),
        (chat(user("hi"), n=3), 3072, None),
        (chat(user("hi"), max_tokens=50), 50, 50),
        (chat(user("hi"), max_tokens=50, max_completion_tokens=70, n=2), 140, 140),
        (chat(user("hi"), max_tokens=-5), 0, 0),
        (completion("hi"), 16, 16),
        (embedding("hi"), 0, 0),
    ],
)
def test_an_answer_is_at_most_what_was_asked_for(call, output, asked):
    found = estimate(call)
    assert (found.output, found.asked) == (output, asked)


def test_a_body_of_unforeseen_types_is_no_fault():
    odd = chat({"role": "user", "content": 5, "name": 7}, tools="x", max_tokens=True, n=1)
    assert estimate(odd).input > 0


def test_a_call_is_counted_once():
    estimates, call = TokenEstimates(), chat(user("hi"))
    assert estimates(call) is estimates(call)


def answered(estimates, call, usage):
    found = estimates(call)
    call.attempts.append(Attempt("up", "m"))
    estimates.learn(call, usage)
    return found


def test_what_a_model_really_bills_corrects_the_estimate():
    """Its vocabulary is unknown and makes a third more tokens; its answers take 40."""
    random, estimates, errors = Random(2), TokenEstimates(), []
    words = json.dumps(list(LABELLED.values())).split()
    for _ in range(60):
        call = chat(user(" ".join(random.choices(words, k=random.randint(5, 300)))), model="claude-x")
        counted = estimates(call).counted
        real = round(1.33 * counted)
        errors.append(abs(answered(estimates, call, Usage(real, 40)).input / real - 1))
    assert errors[0] > 0.2
    assert max(errors[40:]) < 0.02
    assert estimates.errors()["*"] < 0.1
    assert estimates(chat(user("hi"), model="claude-x")).likely_output < 80
    assert estimates(chat(user("hi"), model="claude-x", max_tokens=9)).likely_output == 9
    assert estimates(chat(user("hi"), model="gpt-4o")).input == 8


def test_nothing_is_learnt_of_text_from_pictures_nor_from_a_second_attempt():
    estimates = TokenEstimates()
    picture = user([{"type": "image_url", "image_url": {"url": "https://x.test/y.png"}}])
    before = estimates(chat(user("one two three"))).input
    answered(estimates, chat(picture), Usage(5000, 5))
    again = chat(user("one two three"))
    again.attempts.append(Attempt("other", "m"))
    answered(estimates, again, Usage(5000, 5))
    assert estimates(chat(user("one two three"))).input == before


def test_names_that_lead_to_one_model_share_what_is_learnt():
    estimates = TokenEstimates()
    route = ((Target("openai", "gpt-4o"),),)
    estimates.declare({"fast": Model(route=route), "cheap": Model(route=route)})
    for _ in range(20):
        answered(estimates, chat(user("word " * 100), model="fast"), Usage(300, 5))
    assert estimates(chat(user("word " * 100), model="cheap")).input > 200
    assert set(estimates.errors()) == {"gpt-4o"}


def test_names_of_clients_choosing_are_forgotten_in_the_end():
    estimates = TokenEstimates()
    for number in range(1100):
        estimates(chat(user("hi"), model=f"any-{number}"))
    assert len(estimates._models) == 1024


@pytest.mark.parametrize(("name", "target"), [("fast", "qwen3-8b"), ("qwen*", ASKED)])
def test_vocabularies_are_ready_before_the_first_call(name, target):
    vocabulary.cache_clear()
    estimates = TokenEstimates()
    estimates.declare({name: Model(route=((Target("up", target),),))})
    assert vocabulary.cache_info().misses == 1
    estimates(make_call(model="qwen3-8b", route=name))
    assert vocabulary.cache_info().misses == 1

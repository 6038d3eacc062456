"""A body as a stream and a stream as a body: what one way of asking stored, the other is given."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.cache.answer import is_complete
from policies.cache.assemble import Unclear, assemble
from policies.cache.replay import chunks, text_of

TEXT = st.text(max_size=40)
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
TOOL = st.fixed_dictionaries(
    {
        "id": st.text(min_size=1, max_size=8),
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": st.text(min_size=1, max_size=8), "arguments": TEXT}),
    }
)
LOGPROB = st.fixed_dictionaries({"token": TEXT, "logprob": st.floats(-9, 0), "bytes": st.none()})


@st.composite
def messages(draw):
    message = {"role": "assistant", "content": draw(st.none() | TEXT)}
    if draw(st.booleans()):
        message["reasoning_content"] = draw(TEXT)
    if draw(st.booleans()):
        message["refusal"] = draw(st.none() | TEXT)
    if draw(st.booleans()):
        message["tool_calls"] = draw(st.lists(TOOL, min_size=1, max_size=3))
    return message


@st.composite
def bodies(draw):
    choices = []
    for index in range(draw(st.integers(1, 3))):
        choice = {
            "index": index,
            "message": draw(messages()),
            "finish_reason": draw(st.sampled_from(["stop", "tool_calls"])),
        }
        if draw(st.booleans()):
            choice["logprobs"] = {"content": draw(st.lists(LOGPROB, max_size=3)), "refusal": None}
        choices.append(choice)
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "system_fingerprint": "fp",
        "choices": choices,
        "usage": USAGE,
    }


def datas(body, **ways):
    return [json.dumps(chunk).encode() for chunk, _ in chunks(body, **ways)]


@given(body=bodies(), split=st.booleans())
def test_a_body_replayed_as_a_stream_adds_up_to_itself(body, split):
    assert assemble(datas(body, usage_wanted=True, split=split)) == body


@given(body=bodies(), split=st.booleans())
def test_the_usage_is_told_only_where_it_was_asked_for(body, split):
    told = assemble(datas(body, usage_wanted=False, split=split))
    assert told == {name: value for name, value in body.items() if name != "usage"}


@given(texts=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=3), split=st.booleans())
def test_completions_too(texts, split):
    choices = [{"index": at, "text": text, "finish_reason": "stop"} for at, text in enumerate(texts)]
    body = {
        "id": "c",
        "object": "text_completion",
        "created": 1,
        "model": "m",
        "choices": choices,
        "usage": USAGE,
    }
    replayed = list(chunks(body, usage_wanted=True, split=split))
    assert "".join(text_of(chunk) for chunk, _ in replayed) == texts[0]
    assert assemble([json.dumps(chunk).encode() for chunk, _ in replayed]) == body
    assert [last for _, last in replayed] == [False] * (len(replayed) - 1) + [True]


def piece(**choice):
    return {"object": "chat.completion.chunk", "id": "c", "choices": [{"index": 0, **choice}]}


def test_a_streams_habits_do_not_matter():
    """The role in every chunk, an id in every part of a tool call, usage in every chunk, null everywhere."""
    part = {"index": 0, "id": "t", "type": "function"}
    stream = [
        {
            **piece(delta={"role": "assistant", "content": "a", "refusal": None}),
            "usage": {"prompt_tokens": 1},
        },
        {**piece(delta={"role": "assistant", "content": "b"}, logprobs=None), "usage": {"prompt_tokens": 2}},
        piece(delta={"tool_calls": [{**part, "function": {"name": "f", "arguments": "{"}}]}),
        piece(delta={"tool_calls": [{**part, "id": None, "function": {"arguments": "}"}}]}),
        piece(delta={"content": ""}, finish_reason=None),
        piece(delta={}, finish_reason="tool_calls"),
    ]
    body = assemble([json.dumps(chunk).encode() for chunk in stream])
    message = {
        "role": "assistant",
        "content": "ab",
        "refusal": None,
        "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    }
    choice = {"index": 0, "logprobs": None, "finish_reason": "tool_calls", "message": message}
    assert body == {
        "object": "chat.completion",
        "id": "c",
        "usage": {"prompt_tokens": 2},
        "choices": [choice],
    }


@pytest.mark.parametrize(
    "stream",
    [
        [piece(delta={"unknown": "a"}), piece(delta={"unknown": "b"})],
        [piece(delta={"details": [{"text": "a"}]}), piece(delta={"details": [{"text": "b"}]})],
        [piece(delta={"tool_calls": [{"id": "t"}]})],
        [piece(delta={"tool_calls": [{"index": 0}, {"index": 0}]})],
        [piece(delta={"content": "a"}), piece(delta={"content": [{"type": "text"}]})],
        ["text"],
    ],
)
def test_what_could_be_added_up_in_several_ways_is_left_alone(stream):
    with pytest.raises(Unclear):
        assemble([json.dumps(chunk).encode() for chunk in stream])


def test_no_json_at_all():
    with pytest.raises(Unclear):
        assemble([b"{"])


@pytest.mark.parametrize(
    ("body", "complete"),
    [
        ({"choices": [{"finish_reason": "stop"}]}, True),
        ({"choices": [{"finish_reason": "tool_calls"}]}, True),
        ({"choices": [{"finish_reason": "stop"}, {"finish_reason": "length"}]}, False),
        ({"choices": [{}]}, False),
        ({"choices": []}, False),
        ({"data": [{"embedding": [1]}]}, True),
        ({"data": []}, False),
    ],
)
def test_what_is_complete(body, complete):
    assert is_complete(body) is complete

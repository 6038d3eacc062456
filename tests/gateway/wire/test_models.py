import json

import orjson
import pytest

from gateway.wire.models import parse
from policies.errors import InvalidRequest
from policies.service import Operation

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {"model": "m", "prompt": "hi"}
EMBEDDING = {"model": "m", "input": "hi"}

SOUND = [
    (Operation.CHAT, CHAT),
    (Operation.CHAT, {**CHAT, "stream": None, "temperature": 1, "stop": ["a"], "max_completion_tokens": 5}),
    (Operation.CHAT, {**CHAT, "unheard_of": {"deep": [1, None, "x"]}, "thinking": {"type": "enabled"}}),
    (Operation.CHAT, {**CHAT, "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}),
    (Operation.CHAT, {**CHAT, "messages": [{"role": "assistant", "tool_calls": [], "name": "x"}]}),
    (Operation.CHAT, {**CHAT, "stream_options": {"include_usage": True, "chunk_include_usage": True}}),
    (Operation.CHAT, {**CHAT, "temperature": 99, "n": 1, "logit_bias": {"50256": -100}}),
    (Operation.COMPLETION, COMPLETION),
    (Operation.COMPLETION, {**COMPLETION, "prompt": ["a", "b"], "logprobs": 5, "best_of": 2}),
    (Operation.COMPLETION, {**COMPLETION, "prompt": [1, 2, 3]}),
    (Operation.COMPLETION, {**COMPLETION, "prompt": [[1], [2, 3]]}),
    (Operation.EMBEDDING, EMBEDDING),
    (Operation.EMBEDDING, {**EMBEDDING, "input": ["a"], "dimensions": 256, "encoding_format": "base64"}),
]


@pytest.mark.parametrize(("operation", "body"), SOUND)
def test_a_sound_body_comes_through_untouched(operation, body):
    assert parse(operation, json.dumps(body).encode()) == body


UNSOUND = [
    (Operation.CHAT, {**CHAT, "model": None}, "model", "invalid_value"),
    (Operation.CHAT, {**CHAT, "model": ""}, "model", "invalid_value"),
    (Operation.CHAT, {**CHAT, "model": "m" * 513}, "model", "invalid_value"),
    (Operation.CHAT, {"messages": CHAT["messages"]}, "model", "missing_required_parameter"),
    (Operation.CHAT, {"model": "m"}, "messages", "missing_required_parameter"),
    (Operation.CHAT, {**CHAT, "messages": []}, "messages", "invalid_value"),
    (Operation.CHAT, {**CHAT, "messages": "hi"}, "messages", "invalid_value"),
    (Operation.CHAT, {**CHAT, "messages": ["hi"]}, "messages.0", "invalid_value"),
    (
        Operation.CHAT,
        {**CHAT, "messages": [{"content": "hi"}]},
        "messages.0.role",
        "missing_required_parameter",
    ),
    (Operation.CHAT, {**CHAT, "messages": [{"role": 7}]}, "messages.0.role", "invalid_value"),
    (Operation.CHAT, {**CHAT, "stream": "yes"}, "stream", "invalid_value"),
    (Operation.CHAT, {**CHAT, "stream": 1}, "stream", "invalid_value"),
    (Operation.CHAT, {**CHAT, "temperature": "hot"}, "temperature", "invalid_value"),
    (Operation.CHAT, {**CHAT, "max_tokens": 1.5}, "max_tokens", "invalid_value"),
    (Operation.CHAT, {**CHAT, "n": 0}, "n", "invalid_value"),
    (Operation.CHAT, {**CHAT, "stop": 5}, "stop", "invalid_value"),
    (Operation.CHAT, {**CHAT, "stop": [5]}, "stop", "invalid_value"),
    (Operation.CHAT, {**CHAT, "tools": {}}, "tools", "invalid_value"),
    (Operation.CHAT, {**CHAT, "stream_options": True}, "stream_options", "invalid_value"),
    (
        Operation.CHAT,
        {**CHAT, "stream_options": {"include_usage": "x"}},
        "stream_options.include_usage",
        "invalid_value",
    ),
    (Operation.COMPLETION, {"model": "m"}, "prompt", "missing_required_parameter"),
    (Operation.COMPLETION, {**COMPLETION, "prompt": {}}, "prompt", "invalid_value"),
    (Operation.EMBEDDING, {"model": "m"}, "input", "missing_required_parameter"),
    (Operation.EMBEDDING, {**EMBEDDING, "dimensions": "many"}, "dimensions", "invalid_value"),
]


@pytest.mark.parametrize(("operation", "body", "param", "code"), UNSOUND)
def test_an_unsound_body_is_refused_with_its_field(operation, body, param, code):
    with pytest.raises(InvalidRequest) as caught:
        parse(operation, json.dumps(body).encode())
    assert (caught.value.param, caught.value.code) == (param, code)
    assert f"'{param}'" in caught.value.message


@pytest.mark.parametrize("body", [b"", b"{", b"nonsense", b'{"model": "m",}', b"\xff\xfe", b'{"model": NaN}'])
def test_what_is_not_json_is_refused(body):
    with pytest.raises(InvalidRequest) as caught:
        parse(Operation.CHAT, body)
    assert caught.value.code == "invalid_json"


@pytest.mark.parametrize("body", [b"[]", b"null", b'"hi"', b"7"])
def test_json_that_is_no_object_is_refused(body):
    with pytest.raises(InvalidRequest) as caught:
        parse(Operation.CHAT, body)
    assert caught.value.code == "invalid_type"


def test_a_value_is_never_told_back():
    with pytest.raises(InvalidRequest) as caught:
        parse(Operation.CHAT, json.dumps({**CHAT, "messages": "my secret prompt"}).encode())
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("depth", [10, 200, 253, 254, 300, 900, 5000])
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_what_is_let_in_can_be_written_again(depth, brackets):
    opening, closing = ("[", "]") if brackets == "[]" else ('{"a":', "}")
    body = f'{{"model": "m", "messages": [{{"role": "user"}}], "deep": {opening * depth}1{closing * depth}}}'
    try:
        request = parse(Operation.CHAT, body.encode())
    except InvalidRequest:
        assert depth > 250
    else:
        assert orjson.dumps(request)
        assert depth < 300

"""Streams as a client sees them: whole ones byte for byte, broken ones with an error and no [DONE]."""

import json

import pytest

from tests.kit import answers
from tests.kit.chat import CHAT, chat, comments_of, error_of, messages_of, new_id, text_of
from tests.kit.processes import eventually

WHOLE = [
    "ok",
    "ok:split=1",
    "ok:split=2,crlf=1",
    "ok:split=7",
    "ok:crlf=1",
    "ok:done=0",
    "ok:comments=0.2",
    "ok:comments=0.2,crlf=1,split=3",
    "ok:tokens=3000",
    "wrong_type",
]


@pytest.mark.parametrize("model", WHOLE)
def test_a_whole_stream_is_passed_on_as_it_came(client, model):
    response = client.post(CHAT, json=chat(model, stream=True))
    assert response.status_code == 200
    *chunks, done = messages_of(response.text)
    assert done == "[DONE]"
    count = 3000 if "3000" in model else 12
    assert text_of(chunks) == answers.text(count)
    first, *_, last = (json.loads(chunk) for chunk in chunks)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert last["choices"][0]["finish_reason"] == "stop"
    expected = [
        answers.chunk(f"fake/{model}", {"delta": {"content": piece}}, chat=True)
        for piece in answers.pieces(count)
    ]
    assert [json.loads(chunk) for chunk in chunks[1:-1]] == expected


def test_chunks_are_not_written_anew(client, upstream):
    """The bytes of each chunk are the upstream's: order of members, spaces and unescaped characters."""
    response = client.post(CHAT, json=chat("ok", stream=True))
    chunk = answers.chunk("fake/ok", {"delta": {"content": answers.pieces(12)[8]}}, chat=True)
    assert f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n" in response.text


@pytest.mark.parametrize(
    ("options", "wanted"), [({}, False), ({"stream_options": {"include_usage": True}}, True)]
)
def test_usage_comes_to_whoever_asked_for_it(client, upstream, options, wanted):
    identity = new_id()
    response = client.post(CHAT, json=chat("ok", stream=True, **options), headers={"x-request-id": identity})
    usages = [
        json.loads(message) for message in messages_of(response.text)[:-1] if "usage" in json.loads(message)
    ]
    assert [usage["usage"] for usage in usages] == ([answers.usage(12)] if wanted else [])
    assert upstream.body(identity)["stream_options"] == {"include_usage": True}


def test_usage_is_logged_though_the_client_did_not_ask(client, gateway):
    identity = new_id()
    client.post(CHAT, json=chat("ok", stream=True), headers={"x-request-id": identity})
    line = logged(gateway, identity)
    assert (line["input_tokens"], line["output_tokens"], line["outcome"]) == (7, 12, "ok")


BROKEN = [
    ("cut:how=rst", 40, "stream_interrupted"),
    ("cut:how=fin", 40, "stream_interrupted"),
    ("cut:how=clean", 40, "stream_interrupted"),
    ("malformed", 9, "stream_interrupted"),
    ("error_chunk", 5, "stream_interrupted"),
    ("error_chunk:code=429", 5, "stream_interrupted"),
]


@pytest.mark.parametrize(("model", "kept", "code"), BROKEN)
def test_a_broken_stream_ends_with_an_error_and_never_looks_complete(client, gateway, model, kept, code):
    identity = new_id()
    response = client.post(CHAT, json=chat(model, stream=True), headers={"x-request-id": identity})
    assert response.status_code == 200
    *chunks, last = messages_of(response.text)
    assert "[DONE]" not in response.text
    assert '"finish_reason": "stop"' not in response.text
    assert error_of(last)["code"] == code
    # An RST may overtake what was sent before it.
    text = text_of(chunks)
    assert answers.text(kept).startswith(text) if "rst" in model else text == answers.text(kept)
    line = logged(gateway, identity)
    assert (line["status"], line["outcome"]) == (200, "StreamInterrupted")


FAILED = [
    ("cut:at=0,how=fin", 502, "upstream_unavailable"),
    ("cut:at=0,how=clean", 502, "upstream_unavailable"),
    ("malformed:at=1", 502, "upstream_unavailable"),
    ("error_chunk:at=0", 502, "upstream_unavailable"),
    ("error_chunk:at=0,code=503", 503, "upstream_busy"),
    ("error_body", 502, "upstream_unavailable"),
    ("error_body:code=429", 429, "upstream_throttled"),
    ("error_body:code=insufficient_quota", 503, "upstream_quota_exhausted"),
    ("blank", 502, "upstream_unavailable"),
    ("html", 502, "upstream_unavailable"),
    ("reset", 502, "upstream_unavailable"),
    ("garbage", 502, "upstream_unavailable"),
    ("status:code=401", 502, "upstream_key_rejected"),
    ("status:code=402", 502, "upstream_key_rejected"),
    ("status:code=403", 502, "upstream_key_rejected"),
    ("status:code=429", 429, "upstream_throttled"),
    ("status:code=500", 502, "upstream_unavailable"),
    ("status:code=503", 503, "upstream_busy"),
    ("status:code=529", 503, "upstream_busy"),
]


@pytest.mark.parametrize(("model", "status", "code"), FAILED)
def test_a_stream_that_fails_before_its_first_content_is_an_ordinary_error(client, model, status, code):
    response = client.post(CHAT, json=chat(model, stream=True))
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-should-retry"] == "true"


@pytest.mark.parametrize(("model", "status", "code"), [case for case in FAILED if "at=" not in case[0]])
def test_so_is_a_unary_answer_that_fails(client, model, status, code):
    # A name of its own, so that the failed stream's upstream isn't the one asked.
    response = client.post(CHAT, json=chat(as_another(model)))
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def as_another(model):
    return f"{model}{',' if ':' in model else ':'}unary=1"


@pytest.mark.parametrize("how", ["rst", "fin", "clean"])
def test_a_unary_answer_that_is_cut_is_never_passed_on(client, how):
    response = client.post(CHAT, json=chat(f"cut:how={how}"))
    assert response.status_code == 502


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_what_the_upstream_refuses_is_passed_on(client, status):
    response = client.post(CHAT, json=chat(f"status:code={status},error=because"))
    assert response.status_code == status
    error = response.json()["error"]
    assert (error["message"], error["code"]) == (f"upstream says {status}", "because")
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("form", "least", "most"), [("seconds", 60_000, 60_000), ("ms", 60_000, 60_000), ("date", 40_000, 60_000)]
)
def test_how_long_to_wait_is_passed_on(client, form, least, most):
    response = client.post(CHAT, json=chat(f"status:code=429,after=60,form={form}"))
    assert least <= int(response.headers["retry-after-ms"]) <= most
    assert int(response.headers["retry-after"]) * 1000 >= int(response.headers["retry-after-ms"])


def test_blank_lines_ahead_of_a_body_are_no_part_of_it(client):
    response = client.post(CHAT, json=chat("ok:comments=0.2"))
    assert response.text.startswith("{")
    assert response.json()["choices"][0]["message"]["content"] == answers.text(12)


def read_held(client, upstream, model, until, identity=""):
    """The answer of a model that is held until what its client has heard is enough; and all that it heard."""
    body, headers = chat(f"{model},tag={new_id()}", stream=True), {"x-request-id": identity}
    text = ""
    with client.stream("POST", CHAT, json=body, headers=headers) as response:
        pieces = response.iter_text()
        while not until(text):
            text += next(pieces)
        upstream.release(body["model"])
        return response, text + "".join(pieces)


@pytest.mark.parametrize("model", ["ok:held=0", "ok:comments=inf"])
def test_a_client_that_waits_hears_comments_and_then_a_proper_answer(client, upstream, model):
    """server.ping is 200 ms; what the upstream sends meanwhile counts for nothing."""
    _, text = read_held(client, upstream, model, lambda heard: len(comments_of(heard)) >= 2)
    *chunks, done = messages_of(text)
    assert (text_of(chunks), done) == (answers.text(12), "[DONE]")
    assert text.startswith(":")
    assert ": keep-alive" not in text


def test_a_client_that_waits_between_tokens_hears_them_too(client, upstream):
    def waited(heard):
        return comments_of(heard.partition(answers.PIECES[0])[2])

    _, text = read_held(client, upstream, "ok:tokens=2,held=1", waited)
    assert text_of(messages_of(text)) == answers.text(2)


def test_an_error_after_comments_is_an_event_and_no_done(client, gateway, upstream):
    identity = new_id()
    model = "cut:held=0,at=0,how=fin"
    response, text = read_held(client, upstream, model, comments_of, identity)
    assert response.status_code == 200
    (message,) = messages_of(text)
    assert error_of(message)["code"] == "upstream_unavailable"
    assert logged(gateway, identity)["outcome"] == "UpstreamUnavailable"


def test_a_unary_client_hears_nothing_before_its_answer(client):
    response = client.post(CHAT, json=chat("ok:first=0.5"))
    assert response.json()["choices"][0]["message"]["content"] == answers.text(12)


def logged(gateway, identity):
    return eventually(lambda: next((x for x in gateway.access_log() if x["request_id"] == identity), None))

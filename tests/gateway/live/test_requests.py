"""What a client gets that sends what it shouldn't, and the headers of every answer."""

import json
import re
import socket
from urllib.parse import urlsplit

import pytest

from tests.kit.chat import CHAT, chat, new_id
from tests.kit.processes import ADMIN_KEY, CLIENT_KEY

JSON = {"content-type": "application/json"}


def assert_error(response, status, code, param=None):
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    assert "Traceback" not in error["message"]


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/embeddings", "/v1/models"])
@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "missing_api_key"),
        ("Bearer wrong", "invalid_api_key"),
        (f"Basic {CLIENT_KEY}", "missing_api_key"),
        ("Bearer caf\u00e9", "invalid_api_key"),
    ],
)
def test_no_key_or_a_wrong_one(gateway, path, authorization, code):
    headers = {} if authorization is None else {"authorization": authorization.encode("latin-1")}
    with gateway.client(None) as client:
        ask = client.get if path == "/v1/models" else client.post
        response = ask(path, headers=headers)
    assert_error(response, 401, code)
    assert response.headers["x-should-retry"] == "false"


def test_an_admin_key_does_not_open_v1(gateway):
    with gateway.admin() as client:
        assert_error(client.post(CHAT, json=chat("ok")), 403, "permission_denied")


@pytest.mark.parametrize(
    ("content", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b'{"model": "fake/ok", ', "invalid_json", None),
        (b"[]", "invalid_type", None),
        (b'{"model": "fake/ok"}', "missing_required_parameter", "messages"),
        (b'{"messages": []}', "missing_required_parameter", "model"),
        (b'{"model": 5, "messages": [{"role": "user"}]}', "invalid_value", "model"),
        (b'{"model": "fake/ok", "messages": [{"role": "user"}], "stream": "x"}', "invalid_value", "stream"),
        (b'{"model": "fake/ok", "messages": "\\ud800"}', "invalid_json", None),
    ],
)
def test_bodies_that_cannot_be_understood(client, content, code, param):
    assert_error(client.post(CHAT, content=content, headers=JSON), 400, code, param)


def test_a_body_nested_too_deep_is_the_callers_fault(client):
    for depth in (200, 500, 2000, 100_000):
        deep = b"[" * depth + b"]" * depth
        content = b'{"model": "fake/ok", "messages": [{"role": "user"}], "deep": %b}' % deep
        response = client.post(CHAT, content=content, headers=JSON)
        assert response.status_code in {200, 400}, (depth, response.text)


@pytest.mark.parametrize("name", ["nope", "fake", "FAKE/ok", "plain2", "\u6f6e", "a\r\nb"])
def test_a_model_that_is_not_there(client, name):
    response = client.post(CHAT, json={**chat("ok"), "model": name})
    assert_error(response, 404, "model_not_found", "model")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["fake/a\r\nx-evil: 1\r\n/ok", "fake/\u6f6e\U0001f30a/ok", "fake/\x00/ok"])
def test_a_models_name_cannot_break_the_headers(client, name, stream):
    response = client.post(CHAT, json={**chat("ok", stream=stream), "model": name})
    assert response.status_code == 200
    assert "x-evil" not in response.headers
    assert response.headers["x-tidegate-model"].isascii()


@pytest.mark.parametrize(
    ("method", "path"), [("GET", CHAT), ("PUT", CHAT), ("DELETE", "/v1/models"), ("POST", "/v1/models/plain")]
)
def test_a_wrong_method(client, method, path):
    assert_error(client.request(method, path), 405, "method_not_allowed")


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nope", "/v1/chat/completions/", "/v1/chat"])
def test_an_unknown_route(client, path):
    assert_error(client.post(path, json={}), 404, "unknown_url")


@pytest.mark.parametrize("path", ["/", "/nope", "/admin", "/admin/nope"])
def test_an_unknown_route_elsewhere_is_a_problem(client, path):
    response = client.get(path)
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
    assert response.headers["x-request-id"]


ODD = [
    ("/v1/embeddings", {"input": "a", "stream": True}),
    ("/v1/embeddings", {"input": "a", "stream": True, "stream_options": 5}),
    ("/v1/embeddings", {"input": [[1]], "messages": [7]}),
    ("/v1/completions", {"prompt": "a", "messages": ["a"]}),
    ("/v1/completions", {"prompt": "a", "messages": {"a": 1}, "stream": True}),
    (CHAT, {"messages": [{"role": "user", "prefix": True}], "stream_options": None, "stream": True}),
    (CHAT, {"messages": [{"role": "assistant", "prefix": True}], "max_completion_tokens": None}),
    (CHAT, {"messages": [{"role": "user", "content": 5}], "n": None, "tools": None, "input": {}}),
    (CHAT, {"messages": [{"role": "user"}], "temperature": -1e308, "max_tokens": -(2**63), "seed": 2**63}),
]


@pytest.mark.parametrize(("path", "body"), ODD)
def test_odd_bodies_that_are_the_upstreams_business_reach_it(client, path, body):
    response = client.post(path, json={"model": "fake/ok", **body})
    assert response.status_code == 200, response.text


LIMIT = 256 * 1024


def test_a_body_over_the_limit_is_refused_by_its_length(gateway):
    """Before any of it is read: only the head is sent."""
    with connection(gateway) as raw:
        raw.sendall(head(gateway, f"content-length: {LIMIT + 1}"))
        assert read_head(raw).startswith(b"HTTP/1.1 413 ")


def test_a_body_over_the_limit_is_refused_when_it_comes_in_chunks(gateway):
    with connection(gateway) as raw:
        raw.sendall(head(gateway, "transfer-encoding: chunked"))
        for _ in range(5):
            raw.sendall(b"%x\r\n" % (64 * 1024) + b"x" * (64 * 1024) + b"\r\n")
        assert read_head(raw).startswith(b"HTTP/1.1 413 ")


def test_a_body_at_the_limit_is_taken(client):
    body = json.dumps({**chat("ok"), "pad": ""})
    padded = body.replace('"pad": ""', '"pad": "' + "x" * (LIMIT - len(body)) + '"')
    assert len(padded) == LIMIT
    assert client.post(CHAT, content=padded, headers=JSON).status_code == 200
    assert_error(client.post(CHAT, content=padded + " ", headers=JSON), 413, "payload_too_large")


@pytest.mark.parametrize("key", [None, CLIENT_KEY, ADMIN_KEY])
def test_the_limit_holds_for_the_admin_api_too(gateway, key):
    with gateway.client(key) as client:
        for content in (b"x" * (LIMIT + 1), iter([b"x" * LIMIT, b"x"])):
            response = client.post("/admin/keys", content=content, headers=JSON)
            assert response.status_code == 413
            assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("stream", [False, True])
def test_headers_of_an_answer(client, upstream, stream):
    identity = new_id()
    response = client.post(CHAT, json=chat("ok", stream=stream), headers={"x-request-id": identity})
    headers = response.headers
    assert headers["x-request-id"] == identity
    assert headers["x-tidegate-attempts"] == "1"
    assert headers["x-tidegate-upstream"] == "up"
    assert headers["x-tidegate-model"] == "fake/ok"
    assert float(headers["x-tidegate-overhead-ms"]) >= 0
    assert int(headers["openai-processing-ms"]) >= 0
    assert len(upstream.seen(identity)) == 1
    if stream:
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["cache-control"] == "no-cache"
        assert headers["x-accel-buffering"] == "no"


@pytest.mark.parametrize("given", ["", "has space", "x" * 129, "semi;colon"])
def test_an_unsound_request_id_is_replaced(client, given):
    response = client.get("/v1/models", headers={"x-request-id": given})
    assert re.fullmatch(r"req_[0-9a-f]{24}", response.headers["x-request-id"])


def test_health_needs_no_key(gateway):
    with gateway.client(None) as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").json() == {"status": "ready"}
        assert client.get("/metrics").status_code == 200
        assert client.get("/openapi.json").status_code == 200


def test_cors_for_a_page_that_may_call(gateway):
    origin = {"origin": "https://app.example.com"}
    ask = {
        **origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    with gateway.client(None) as client:
        preflight = client.options(CHAT, headers=ask)
        refused = client.post(CHAT, headers=origin)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://app.example.com"
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://app.example.com"
    with gateway.client() as client:
        answer = client.post(CHAT, json=chat("ok", stream=True), headers=origin)
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    assert answer.headers["access-control-expose-headers"] == "*"


def test_cors_for_a_page_that_may_not(gateway):
    ask = {"origin": "https://evil.example.com", "access-control-request-method": "POST"}
    with gateway.client(None) as client:
        assert "access-control-allow-origin" not in client.options(CHAT, headers=ask).headers


def test_what_is_not_http_gets_an_answer_and_the_gateway_lives(gateway, client):
    for nonsense in (
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
    ):
        with connection(gateway) as raw:
            raw.sendall(nonsense)
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(4096):
                pass
    assert client.get("/v1/models").status_code == 200


def test_pipelined_requests_are_answered_in_their_order(gateway):
    one = json.dumps(chat("ok:first=0.2,tokens=1")).encode()
    two = json.dumps(chat("ok:tokens=2")).encode()
    with connection(gateway) as raw:
        for body in (one, two):
            raw.sendall(head(gateway, f"content-length: {len(body)}") + body)
        text = b""
        while text.count(b"HTTP/1.1 200") < 2 or b"turns" not in text:
            text += raw.recv(65536)
    assert text.index(b"tokens=1") < text.index(b"tokens=2")


def connection(gateway):
    parts = urlsplit(gateway.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


def head(gateway, *more):
    lines = [f"POST {CHAT} HTTP/1.1", "host: x", f"authorization: Bearer {CLIENT_KEY}", *more, "", ""]
    return "\r\n".join(lines).encode()


def read_head(raw):
    text = b""
    while b"\r\n\r\n" not in text:
        piece = raw.recv(65536)
        assert piece, text
        text += piece
    return text

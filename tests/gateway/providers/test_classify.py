import json

import aiohttp
import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.providers import classify
from gateway.wire.errors import render
from policies import errors

REJECTED = [400, 410, 415, 418, 422, 451]
STATUSES = [
    (401, errors.UpstreamKeyRejected),
    (402, errors.UpstreamKeyRejected),
    (403, errors.UpstreamKeyRejected),
    (408, errors.UpstreamUnavailable),
    (409, errors.UpstreamUnavailable),
    (425, errors.UpstreamUnavailable),
    (429, errors.UpstreamThrottled),
    (500, errors.UpstreamUnavailable),
    (502, errors.UpstreamUnavailable),
    (503, errors.UpstreamBusy),
    (504, errors.UpstreamUnavailable),
    (529, errors.UpstreamBusy),
    (302, errors.UpstreamUnavailable),
    (204, errors.UpstreamUnavailable),
    (413, errors.UpstreamContextTooLong),
    (404, errors.UpstreamUnsuited),
    (405, errors.UpstreamUnsuited),
    *((status, errors.UpstreamRejected) for status in REJECTED),
]


def answered(status, *, code=None, headers=(), message="no"):
    body = {"error": {"message": message, "type": "t", "param": None, "code": code}}
    return classify.from_response("up", status, headers, json.dumps(body).encode(), 0.0)


@pytest.mark.parametrize(("status", "kind"), STATUSES)
def test_a_status_tells_the_kind(status, kind):
    error = answered(status)
    assert type(error) is kind
    assert error.status == status
    assert error.retryable is not issubclass(kind, errors.UpstreamRejected)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (429, "insufficient_quota", errors.UpstreamQuotaExhausted),
        (402, "insufficient_quota", errors.UpstreamQuotaExhausted),
        (429, "rate_limit_exceeded", errors.UpstreamThrottled),
        (400, "context_length_exceeded", errors.UpstreamContextTooLong),
        (400, "invalid_value", errors.UpstreamRejected),
    ],
)
def test_an_error_code_refines_it(status, code, kind):
    assert type(answered(status, code=code)) is kind


def test_the_wait_is_kept():
    assert answered(429, headers=[(b"retry-after", b"3")]).retry_after == 3
    assert answered(503, headers=[(b"retry-after-ms", b"70")]).retry_after == 0.07
    assert answered(500).retry_after is None


def test_a_refused_key_is_not_told_on():
    error = answered(401, message="Incorrect API key provided: sk-abc")
    assert "sk-abc" not in error.message


def test_a_message_decides_nothing():
    assert type(answered(500, message="rate limit exceeded, HTTP 429")) is errors.UpstreamUnavailable


@pytest.mark.parametrize("status", [400, 404, 422])
def test_what_the_upstream_refused_is_kept_as_it_said_it(status):
    assert answered(status, code="x").body == {"message": "no", "type": "t", "param": None, "code": "x"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "a", "code": 1}}, "a"),
        ([{"error": {"message": "b"}}], "b"),
        ({"message": "c", "detail": 1}, "c"),
        ({"error": "d"}, "d"),
        ({"error": None}, None),
        ({"error": {"message": 5}}, None),
        ({"detail": "e"}, None),
        ([], None),
        ("f", None),
    ],
)
def test_the_usual_shapes_of_an_error_body(body, message):
    found = classify.error_object(json.dumps(body).encode())
    assert (found and found["message"]) == message


@pytest.mark.parametrize("body", [b"", b"<html>busy</html>", b"\xff"])
def test_a_body_that_is_no_json_is_no_error_object(body):
    assert classify.error_object(body) is None
    assert type(classify.from_response("up", 500, (), body, 0.0)) is errors.UpstreamUnavailable


def test_an_error_that_is_nested_too_deep_to_be_passed_on_is_told_without_it():
    deep = {"message": "busy", "code": 400, "why": orjson.loads(b"[" * 300 + b"]" * 300)}
    for found in (
        classify.from_response("up", 400, (), json.dumps({"error": deep}).encode(), 0.0),
        classify.from_error_in_ok("up", deep),
    ):
        assert type(found) is errors.UpstreamRejected
        assert json.loads(render(found).body)["error"]["code"] == "upstream_rejected"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (429, errors.UpstreamThrottled),
        ("503", errors.UpstreamBusy),
        (400, errors.UpstreamRejected),
        ("busy", errors.UpstreamUnavailable),
        ("insufficient_quota", errors.UpstreamQuotaExhausted),
        (None, errors.UpstreamUnavailable),
        (200, errors.UpstreamUnavailable),
        (True, errors.UpstreamUnavailable),
        ("²", errors.UpstreamUnavailable),
        ("9" * 5000, errors.UpstreamUnavailable),
    ],
)
def test_an_error_in_a_200_is_classed_by_its_code(code, kind):
    assert type(classify.from_error_in_ok("up", {"message": "busy", "code": code})) is kind


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["message", "code", "type", "error", "param"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_error_in_a_200_is_some_upstream_error(error):
    assert isinstance(classify.from_error_in_ok("up", error), errors.UpstreamError)


@given(st.integers(100, 999), JSON)
def test_any_answer_is_some_upstream_error(status, body):
    found = classify.from_response("up", status, (), json.dumps(body).encode(), 0.0)
    assert isinstance(found, errors.UpstreamError)


def caused(outer, cause):
    outer.__cause__ = cause
    return outer


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError(), errors.UpstreamTimeout),
        (caused(httpx.ConnectTimeout(""), aiohttp.ServerDisconnectedError()), errors.UpstreamUnavailable),
        (caused(httpx.ConnectTimeout(""), aiohttp.ClientOSError()), errors.UpstreamUnavailable),
        (caused(httpx.ConnectTimeout(""), aiohttp.ConnectionTimeoutError()), errors.UpstreamTimeout),
        (caused(httpx.ReadTimeout(""), TimeoutError()), errors.UpstreamTimeout),
        (caused(httpx.ConnectError(""), OSError()), errors.UpstreamUnavailable),
        (caused(httpx.ReadError(""), ConnectionResetError()), errors.UpstreamUnavailable),
        (aiohttp.ServerDisconnectedError(), errors.UpstreamUnavailable),
        (OSError("no route"), errors.UpstreamUnavailable),
    ],
)
def test_exceptions(error, kind):
    found = classify.from_exception("up", error)
    assert type(found) is kind
    assert found.retryable

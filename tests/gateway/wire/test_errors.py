import inspect
import json

import pytest

from gateway.wire import errors as wire
from policies import errors


def descendants(cls):
    for child in cls.__subclasses__():
        yield child
        yield from descendants(child)


ALL = sorted({errors.GatewayError, *descendants(errors.GatewayError)}, key=lambda cls: cls.__name__)
GROUPS = {errors.GatewayError, errors.CallerError, errors.UpstreamError, errors.Throttled}
"""Raised only as one of their kinds."""
RAISED = [cls for cls in ALL if cls not in GROUPS and cls.__module__.startswith(("policies", "gateway"))]
TYPES = {"invalid_request_error", "rate_limit_error", "server_error"}


def make(cls, **facts):
    if "status" in inspect.signature(cls).parameters and issubclass(cls, errors.UpstreamRejected):
        facts.setdefault("status", 404)
    return cls("what to do", **facts)


@pytest.mark.parametrize("cls", RAISED, ids=lambda cls: cls.__name__)
def test_every_error_has_a_shape(cls):
    rendered = wire.render(make(cls))
    body = json.loads(rendered.body)["error"]
    assert set(body) == {"message", "type", "param", "code"}
    assert body["message"] == "what to do"
    assert body["type"] in TYPES
    assert body["code"] or cls is errors.InvalidRequest
    assert 400 <= rendered.status < 600
    headers = dict(rendered.headers)
    assert headers[b"x-should-retry"] == (b"true" if cls.retryable else b"false")
    assert b"retry-after" not in headers


@pytest.mark.parametrize("cls", RAISED, ids=lambda cls: cls.__name__)
def test_the_status_says_whose_fault_it_is(cls):
    status = wire.render(make(cls)).status
    if cls is errors.NotCached:
        assert status == 504  # what RFC 9111 wants for only-if-cached
    elif cls.blame == "caller":
        assert 400 <= status < 500
    elif not issubclass(cls, errors.UpstreamRejected):
        assert status >= 500 or status == 429


STATUSES = [
    (errors.InvalidRequest, 400, None),
    (errors.PayloadTooLarge, 413, "payload_too_large"),
    (errors.AuthenticationFailed, 401, "invalid_api_key"),
    (errors.PermissionDenied, 403, "permission_denied"),
    (errors.ModelNotFound, 404, "model_not_found"),
    (errors.NotCached, 504, "not_cached"),
    (errors.RouteNotFound, 404, "unknown_url"),
    (errors.MethodNotAllowed, 405, "method_not_allowed"),
    (errors.RateLimited, 429, "rate_limit_exceeded"),
    (errors.LimitTooSmall, 429, "rate_limit_exceeded"),
    (errors.QuotaExhausted, 429, "insufficient_quota"),
    (errors.Overloaded, 503, "overloaded"),
    (errors.UpstreamThrottled, 429, "upstream_throttled"),
    (errors.UpstreamBusy, 503, "upstream_busy"),
    (errors.UpstreamTimeout, 504, "upstream_timeout"),
    (errors.UpstreamUnavailable, 502, "upstream_unavailable"),
    (errors.DeadlineExceeded, 504, "deadline_exceeded"),
    (errors.ShuttingDown, 503, "shutting_down"),
    (errors.InternalError, 500, "internal_error"),
]


@pytest.mark.parametrize(("cls", "status", "code"), STATUSES)
def test_statuses_and_codes(cls, status, code):
    rendered = wire.render(make(cls))
    assert (rendered.status, rendered.error["code"]) == (status, code)


@pytest.mark.parametrize(
    ("wait", "seconds", "millis"),
    [(2, b"2", b"2000"), (0.25, b"1", b"250"), (0, b"0", b"0"), (1.0001, b"2", b"1001")],
)
def test_the_wait_is_told_in_seconds_and_milliseconds_and_never_too_short(wait, seconds, millis):
    headers = dict(wire.render(errors.UpstreamThrottled("slow down", retry_after=wait)).headers)
    assert (headers[b"retry-after"], headers[b"retry-after-ms"]) == (seconds, millis)


@pytest.mark.parametrize(("wait", "again"), [(None, b"true"), (60, b"true"), (60.1, b"false")])
def test_nobody_is_told_to_try_again_before_the_time_that_they_would_wait(wait, again):
    assert dict(wire.render(errors.RateLimited("full", retry_after=wait)).headers)[b"x-should-retry"] == again


def test_a_callers_error_names_its_field_and_its_own_code():
    rendered = wire.render(errors.InvalidRequest("no", param="messages", code="invalid_value"))
    assert (rendered.error["param"], rendered.error["code"]) == ("messages", "invalid_value")


def test_what_an_upstream_refused_is_passed_on_as_it_said_it():
    said = {
        "message": "bad temperature",
        "type": "invalid_request_error",
        "param": "temperature",
        "code": None,
    }
    rendered = wire.render(errors.UpstreamRejected("up: HTTP 422", status=422, body=said))
    assert (rendered.status, rendered.error) == (422, said)


def test_a_kind_without_a_shape_of_its_own_gets_its_parents():
    special = type("Special", (errors.UpstreamTimeout,), {})
    assert wire.render(special("late")).status == 504

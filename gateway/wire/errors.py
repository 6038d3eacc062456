"""The only place that chooses an HTTP status: errors become OpenAI's error body here.

The official SDKs obey ``x-should-retry`` and ``retry-after-ms``, and raise ``APIError`` when a
stream carries ``data: {"error": ...}``.
"""

import math
from dataclasses import dataclass
from typing import Any

import orjson

from policies import errors

_SOON = 60.0
"""Seconds. The SDKs wait no longer than that, and try again too early instead."""


@dataclass(frozen=True, slots=True)
class _Shape:
    status: int
    type: str
    code: str | None = None


_SHAPES: dict[type[errors.GatewayError], _Shape] = {
    errors.InvalidRequest: _Shape(400, "invalid_request_error"),
    errors.PayloadTooLarge: _Shape(413, "invalid_request_error", "payload_too_large"),
    errors.ContextTooLong: _Shape(400, "invalid_request_error", "context_length_exceeded"),
    errors.AuthenticationFailed: _Shape(401, "invalid_request_error", "invalid_api_key"),
    errors.PermissionDenied: _Shape(403, "invalid_request_error", "permission_denied"),
    errors.ModelNotFound: _Shape(404, "invalid_request_error", "model_not_found"),
    errors.NotCached: _Shape(504, "invalid_request_error", "not_cached"),
    errors.RouteNotFound: _Shape(404, "invalid_request_error", "unknown_url"),
    errors.MethodNotAllowed: _Shape(405, "invalid_request_error", "method_not_allowed"),
    errors.RateLimited: _Shape(429, "rate_limit_error", "rate_limit_exceeded"),
    errors.QuotaExhausted: _Shape(429, "rate_limit_error", "insufficient_quota"),
    errors.Overloaded: _Shape(503, "server_error", "overloaded"),
    errors.UpstreamThrottled: _Shape(429, "rate_limit_error", "upstream_throttled"),
    errors.UpstreamBusy: _Shape(503, "server_error", "upstream_busy"),
    errors.UpstreamQuotaExhausted: _Shape(503, "server_error", "upstream_quota_exhausted"),
    errors.UpstreamKeyRejected: _Shape(502, "server_error", "upstream_key_rejected"),
    errors.UpstreamUnavailable: _Shape(502, "server_error", "upstream_unavailable"),
    errors.UpstreamTimeout: _Shape(504, "server_error", "upstream_timeout"),
    errors.UpstreamRejected: _Shape(400, "invalid_request_error", "upstream_rejected"),
    errors.StreamInterrupted: _Shape(502, "server_error", "stream_interrupted"),
    errors.DeadlineExceeded: _Shape(504, "server_error", "deadline_exceeded"),
    errors.NoHealthyUpstream: _Shape(503, "server_error", "no_healthy_upstream"),
    errors.ShuttingDown: _Shape(503, "server_error", "shutting_down"),
    errors.InternalError: _Shape(500, "server_error", "internal_error"),
}


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """An error as HTTP: its status, its own headers and the object below ``error``."""

    status: int
    headers: list[tuple[bytes, bytes]]
    error: dict[str, Any]

    @property
    def body(self) -> bytes:
        """The JSON body; it serves as the data of an SSE message as well."""
        return orjson.dumps({"error": self.error})


def render(error: errors.GatewayError) -> ErrorResponse:
    """Map an error to what the client gets."""
    shape = next(_SHAPES[cls] for cls in type(error).__mro__ if cls in _SHAPES)
    body: dict[str, Any] = {"message": error.message, "type": shape.type, "param": None, "code": shape.code}
    status = shape.status
    if isinstance(error, errors.CallerError):
        body["param"] = error.param
        body["code"] = error.code or shape.code
    elif isinstance(error, errors.UpstreamRejected):
        status = error.status or status
        body = error.body or body
    return ErrorResponse(status, _headers(error), body)


def _headers(error: errors.GatewayError) -> list[tuple[bytes, bytes]]:
    soon = error.retry_after is None or error.retry_after <= _SOON
    headers = [(b"x-should-retry", b"true" if error.retryable and soon else b"false")]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % math.ceil(error.retry_after)))
        headers.append((b"retry-after-ms", b"%d" % math.ceil(error.retry_after * 1000)))
    return headers

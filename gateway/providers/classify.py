"""The only maker of upstream errors: from status, headers, error code and exception type.

Message texts are passed on where they help, and never decide anything.
"""

from http import HTTPStatus
from typing import Any

import aiohttp
import httpx
import orjson

from gateway.providers.headers import RawHeaders, retry_after
from policies.errors import (
    UpstreamBusy,
    UpstreamContextTooLong,
    UpstreamError,
    UpstreamKeyRejected,
    UpstreamQuotaExhausted,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnsuited,
)

TRANSPORT_ERRORS = (httpx.TransportError, httpx.DecodingError, aiohttp.ClientError, OSError)
"""What a transport raises when a connection can't be made or breaks, or when what came can't be unpacked."""

_MAX_MESSAGE = 500
_QUOTA_CODES = {"insufficient_quota", "quota_exceeded", "billing_hard_limit_reached"}
_CONTEXT_CODES = {"context_length_exceeded", "context_window_exceeded", "request_too_large"}
_KINDS: dict[int, type[UpstreamError]] = {
    401: UpstreamKeyRejected,
    402: UpstreamKeyRejected,
    403: UpstreamKeyRejected,
    404: UpstreamUnsuited,
    405: UpstreamUnsuited,
    408: UpstreamUnavailable,
    409: UpstreamUnavailable,
    413: UpstreamContextTooLong,
    425: UpstreamUnavailable,
    429: UpstreamThrottled,
    503: UpstreamBusy,
    529: UpstreamBusy,  # Anthropic's "overloaded"
}
"""What a status means. Any other 4xx is the caller's fault, anything else the upstream's."""

_CALLERS_STATUSES = range(400, 500)
_STATUS_BY_CODE = {str(status): status for status in range(400, 600)}


def from_exception(upstream: str, error: Exception) -> UpstreamError:
    """Class a failure to connect, send or read the head of the answer."""
    # The cause decides: httpx-aiohttp calls every lost connection a ConnectTimeout.
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    if isinstance(cause, TimeoutError):
        return UpstreamTimeout(f"{upstream}: no connection in time.")
    if isinstance(cause, aiohttp.ClientConnectorError):
        return UpstreamUnavailable(f"{upstream}: can't connect.")
    return UpstreamUnavailable(f"{upstream}: the connection was lost before an answer came.")


def from_response(
    upstream: str, status: int, headers: RawHeaders, body: bytes, wall_time: float
) -> UpstreamError:
    """Class an answer with a status other than 200."""
    error = error_object(body)
    wait = retry_after(headers, wall_time)
    code = _code(error)
    message = _message(upstream, status, error)
    kind = _kind(status, code)
    if kind is UpstreamKeyRejected:
        return kind(f"{upstream}: the upstream refused the gateway's key (HTTP {status}).", status=status)
    if issubclass(kind, UpstreamRejected):
        return kind(message, status=status, body=error)
    return kind(message, status=status, retry_after=wait)


def _kind(status: int, code: str | None) -> type[UpstreamError]:
    if code in _QUOTA_CODES:
        return UpstreamQuotaExhausted
    if status in _CALLERS_STATUSES and code in _CONTEXT_CODES:
        return UpstreamContextTooLong
    usual = UpstreamRejected if status in _CALLERS_STATUSES else UpstreamUnavailable
    return _KINDS.get(status, usual)


def from_error_in_ok(upstream: str, error: object) -> UpstreamError:
    """Class an error that came with status 200, in a body or in a stream."""
    code = error.get("code") if isinstance(error, dict) else None
    status = _STATUS_BY_CODE.get(str(code), HTTPStatus.BAD_GATEWAY)
    try:
        body = orjson.dumps({"error": error})
    except orjson.JSONEncodeError:  # nested deeper than can be written
        body = b""
    return from_response(upstream, status, (), body, 0.0)


def error_object(body: bytes) -> dict[str, Any] | None:
    """The error object of a body in OpenAI's shape or one of its usual variants; None for anything else."""
    try:
        parsed = orjson.loads(body)
        orjson.dumps(parsed)  # what can be read may be nested too deep to be passed on
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    if isinstance(parsed, list) and parsed:
        parsed = parsed[0]
    if not isinstance(parsed, dict):
        return None
    error = parsed.get("error", parsed)
    if isinstance(error, str):
        return {"message": error, "type": "upstream_error", "param": None, "code": None}
    return error if isinstance(error, dict) and isinstance(error.get("message"), str) else None


def _code(error: dict[str, Any] | None) -> str | None:
    if error is None:
        return None
    code = error.get("code")
    return code if isinstance(code, str) else None


def _message(upstream: str, status: int, error: dict[str, Any] | None) -> str:
    detail = error["message"][:_MAX_MESSAGE] if error else "no error message"
    return f"{upstream} answered HTTP {status}: {detail}"

"""Errors outside the hot endpoints: OpenAI's shape below /v1, RFC 9457 problem details elsewhere."""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from gateway.wire import errors
from policies.errors import AuthenticationFailed, GatewayError, InternalError, MethodNotAllowed, RouteNotFound

_LOG = logging.getLogger(__name__)
_WHEN = {
    400: "The request can't be understood; `errors` names the fields.",
    401: "No key, or one that is unknown or expired.",
    403: "The key's role isn't enough; the detail names the one that is needed.",
    404: "There is no such thing.",
    409: "It contradicts what there is; the detail says how.",
    412: "It has another state than the request was meant for.",
    413: "The body is larger than the gateway takes.",
    422: "The configuration's file has faults; `errors` has a line for each.",
    428: "It exists, and the request doesn't say which state of it is meant.",
    503: "The database doesn't answer.",
}


class FieldFault(BaseModel):
    """What is wrong with one field."""

    field: str
    message: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(description="What is wrong, and what to do.")
    errors: list[FieldFault | str] | None = Field(
        default=None, description="Each fault, where there may be many."
    )


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These problems, for a route's ``responses``."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _WHEN[status], "content": content} for status in statuses}


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` in the shape that its path calls for."""
    app.add_exception_handler(GatewayError, _gateway_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(SQLAlchemyError, _database_error)
    app.add_exception_handler(OSError, _database_error)
    app.add_exception_handler(Exception, _unforeseen)


def problem(status: int, detail: str, **members: Any) -> Response:
    """An RFC 9457 answer; ``members`` extend it."""
    title = HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **members}
    return JSONResponse(body, status_code=status, media_type="application/problem+json")


async def _gateway_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)  # noqa: S101 - registered for it
    rendered = errors.render(error)
    if not _is_openai(request):
        response = problem(rendered.status, error.message)
        if isinstance(error, AuthenticationFailed):
            response.headers["www-authenticate"] = "Bearer"
        return response
    response = Response(rendered.body, rendered.status, media_type="application/json")
    response.raw_headers.extend(rendered.headers)
    return response


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    method, path = request.method, request.url.path
    if not _is_openai(request):
        response = problem(error.status_code, str(error.detail))
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        response = await _gateway_error(request, MethodNotAllowed(f"Not allowed: {method} {path}."))
    else:
        response = await _gateway_error(request, RouteNotFound(f"Unknown request URL: {method} {path}."))
    response.headers.update(error.headers or {})
    return response


async def _validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    faults = [
        {
            "field": _sendable(".".join(str(part) for part in fault["loc"])),
            "message": _sendable(fault["msg"].removeprefix("Value error, ")),
        }
        for fault in error.errors()
    ]
    detail = "; ".join(f"{fault['field']}: {fault['message']}" for fault in faults)
    return problem(400, detail, errors=faults)


async def _database_error(request: Request, error: Exception) -> Response:
    _LOG.warning("%s %s: the database doesn't answer: %s", request.method, request.url.path, error)
    return problem(503, "The database doesn't answer. Send the request again.")


async def _unforeseen(request: Request, error: Exception) -> Response:
    _LOG.error("request %s: %r", getattr(request.state, "request_id", "?"), error)
    message = "The gateway failed; the log has the details under the request's id."
    return await _gateway_error(request, InternalError(message))


def _sendable(text: str) -> str:
    """Text without what JSON can escape and UTF-8 can't hold."""
    return text.encode(errors="replace").decode()


def _is_openai(request: Request) -> bool:
    path = request.url.path
    return path == "/v1" or path.startswith("/v1/")

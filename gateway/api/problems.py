"""Errors outside the hot endpoints: OpenAI's shape below /v1, RFC 9457 problem details elsewhere."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from gateway.wire import errors
from policies.errors import GatewayError, MethodNotAllowed, RouteNotFound


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` in the shape that its path calls for."""
    app.add_exception_handler(GatewayError, _gateway_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)


def problem(status: int, detail: str, **members: Any) -> Response:
    """An RFC 9457 answer; ``members`` extend it."""
    title = HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **members}
    return JSONResponse(body, status_code=status, media_type="application/problem+json")


async def _gateway_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)  # noqa: S101 - registered for it
    rendered = errors.render(error)
    if not _is_openai(request):
        return problem(rendered.status, error.message)
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
        {"field": ".".join(str(part) for part in fault["loc"]), "message": fault["msg"]}
        for fault in error.errors()
    ]
    detail = "; ".join(f"{fault['field']}: {fault['message']}" for fault in faults)
    return problem(400, detail, errors=faults)


def _is_openai(request: Request) -> bool:
    path = request.url.path
    return path == "/v1" or path.startswith("/v1/")

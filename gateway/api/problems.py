"""Errors outside the hot endpoints: OpenAI's shape below /v1, RFC 9457 problem details elsewhere."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from gateway.wire import errors
from policies.errors import GatewayError, MethodNotAllowed, RouteNotFound

_TITLES = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    413: "Payload too large",
}


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` in the shape that its path calls for."""
    app.add_exception_handler(GatewayError, _gateway_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation_error)


def problem(status: int, detail: str, **members: Any) -> Response:
    """An RFC 9457 answer; ``members`` extend it."""
    title = _TITLES.get(status, "Error")
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
    if not _is_openai(request):
        return problem(error.status_code, str(error.detail))
    method, path = request.method, request.url.path
    if error.status_code == 405:  # noqa: PLR2004 - HTTP Method Not Allowed
        return await _gateway_error(request, MethodNotAllowed(f"Not allowed: {method} {path}."))
    return await _gateway_error(request, RouteNotFound(f"Unknown request URL: {method} {path}."))


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

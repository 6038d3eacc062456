"""The API's description of itself: OpenAPI at /openapi.json, and Swagger UI, served from here, at /docs.

FastAPI describes errors of its own that this gateway doesn't answer with; they are replaced by what it does.
"""

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from pydantic.json_schema import models_json_schema

from gateway.api.problems import Problem, documented

MERGE_PATCH = "x-merge-patch"
"""In a route's ``openapi_extra``: the name of the schema that its body is a merge patch of."""

_TAGS = [
    {"name": "OpenAI", "description": "The OpenAI-compatible endpoints, for clients' keys."},
    {"name": "Operations", "description": "What machines watch; no key is needed."},
    {"name": "Admin", "description": "Viewers read, operators change things, owners change who may."},
]
_SCHEMAS = "#/components/schemas/"
_OWN_ERRORS = ("HTTPValidationError", "ValidationError")
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_CALL_ERRORS = {
    400: "The body can't be understood; `param` names the field.",
    401: "No key, or one that is unknown or expired.",
    403: "The key doesn't open this.",
    404: "No such model, or not for this key.",
    413: "The body is larger than the gateway takes.",
    429: "A limit is reached; `retry-after-ms` is when the call fits.",
    502: "The upstreams failed.",
    503: "No upstream is available, or the gateway has too much to do.",
    504: "The upstreams, or the whole call, took too long.",
}


def install(app: FastAPI) -> None:
    """Have ``app`` describe itself, without fetching anything from elsewhere."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _describe(app)
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]  # FastAPI's documented way to change it
    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_swagger", "resources")]))
    routes = APIRouter(include_in_schema=False)

    @routes.get("/docs")
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=app.title,
            swagger_js_url="docs/assets/swagger-ui-bundle.js",
            swagger_css_url="docs/assets/swagger-ui.css",
            swagger_favicon_url="docs/assets/favicon-32x32.png",
        )

    app.include_router(routes)


def call_errors(*statuses: int) -> dict[str, Any]:
    """The errors of an endpoint below /v1, all of them unless some are named."""
    content = {"application/json": {"schema": {"$ref": f"{_SCHEMAS}Error"}}}
    wanted = statuses or tuple(_CALL_ERRORS)
    return {str(status): {"description": _CALL_ERRORS[status], "content": content} for status in wanted}


def _describe(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=_TAGS
    )
    schemas = schema["components"]["schemas"]
    for name in _OWN_ERRORS:
        schemas.pop(name, None)
    _, problem = models_json_schema([(Problem, "serialization")], ref_template=_SCHEMAS + "{model}")
    schemas.update(problem["$defs"], Error=_ERROR)
    for operation in _operations(schema):
        _correct(operation, schemas)
    return schema


def _operations(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in schema["paths"].values():
        yield from path.values()


def _correct(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """FastAPI's 422 is our 400, and a merge patch takes what it patches, or null."""
    responses = operation["responses"]
    described = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if described.get("$ref", "").endswith(_OWN_ERRORS):
        del responses["422"]
        responses.setdefault("400", documented(400)[400])
    patched: str | None = operation.pop(MERGE_PATCH, None)
    if patched is not None:
        content = operation["requestBody"]["content"]
        body = content.pop("application/json")
        content["application/merge-patch+json"] = body
        body["schema"] = _nullable(schemas[patched], schemas)


def _nullable(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """An object's schema with each member, and theirs, allowed to be null and none required."""
    if "$ref" in schema:
        return _nullable(schemas[schema["$ref"].removeprefix(_SCHEMAS)], schemas)
    if schema.get("type") != "object":
        return schema
    members = {
        name: {"anyOf": [_nullable(member, schemas), {"type": "null"}]}
        for name, member in schema["properties"].items()
    }
    return {"type": "object", "properties": members, "additionalProperties": False}

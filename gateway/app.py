"""One worker's application: the endpoints over what it serves with."""

from typing import Any

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from gateway import __version__
from gateway.api import admin, health, models, openapi, problems
from gateway.api.compression import Compression
from gateway.api.exchange import Endpoint
from gateway.api.front_door import FrontDoor
from gateway.dashboard import pages as dashboard
from gateway.dashboard.live import Live
from gateway.metrics import Metrics
from gateway.serving import Serving
from gateway.wire.models import ENVELOPES
from policies.service import Operation

_SUMMARIES = {
    Operation.CHAT: "Create a chat completion",
    Operation.COMPLETION: "Create a completion",
    Operation.EMBEDDING: "Create embeddings",
}


def create_app(serving: Serving, metrics: Metrics, live: Live) -> ASGIApp:
    """Assemble the application."""
    app = FastAPI(
        title="Tidegate",
        version=__version__,
        description="A resilient, OpenAI-compatible gateway for LLMs.",
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    problems.install(app)
    openapi.install(app)
    endpoints: dict[str, ASGIApp] = {}
    for operation in Operation:
        path = f"/v1/{operation.value}"
        endpoints[path] = endpoint = Endpoint(operation, serving)
        app.router.routes.append(_documented(path, operation, endpoint))
    app.include_router(models.router(serving))
    app.include_router(health.router(serving, metrics if serving.settings.observability.metrics else None))
    app.include_router(admin.router(serving, metrics, live))
    dashboard.install(app, serving, live)
    door: ASGIApp = Compression(FrontDoor(app, endpoints, serving))
    cors = serving.settings.server.cors
    if cors is not None:
        door = CORSMiddleware(
            door,
            allow_origins=list(cors.origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    return door


def _documented(path: str, operation: Operation, endpoint: Endpoint) -> APIRoute:
    """A route that the API's documentation shows; its requests never reach FastAPI's machinery."""

    async def described() -> None:
        """Pass a request on in OpenAI's format; unknown parameters reach the upstream untouched."""

    schema = ENVELOPES[operation].model_json_schema()
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    answer: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if operation is not Operation.EMBEDDING:
        answer["text/event-stream"] = {"schema": {"type": "string"}}
    route = APIRoute(
        path,
        described,
        methods=["POST"],
        summary=_SUMMARIES[operation],
        tags=["OpenAI"],
        dependencies=[Depends(models.CLIENT_KEY)],
        openapi_extra={
            "requestBody": body,
            "responses": {"200": {"description": "The answer.", "content": answer}, **openapi.call_errors()},
        },
    )
    route.app = endpoint
    return route

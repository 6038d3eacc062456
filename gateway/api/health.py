"""GET /healthz, /readyz and /metrics."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from gateway.metrics import Metrics
from gateway.metrics.modelservers import ModelServerSeries
from gateway.serving import Serving


def router(serving: Serving, metrics: Metrics | None) -> APIRouter:
    """The routes that machines watch; ``metrics`` None leaves /metrics out."""
    routes = APIRouter(tags=["Operations"])

    @routes.head("/healthz", include_in_schema=False)
    @routes.get("/healthz", summary="Is the process alive?")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @routes.head("/readyz", include_in_schema=False)
    @routes.get("/readyz", summary="Can it serve? Names what is missing")
    async def readyz() -> JSONResponse:
        missing = await serving.missing()
        if missing:
            return JSONResponse({"status": "not ready", "missing": missing}, status_code=503)
        degraded = serving.degraded()
        return JSONResponse({"status": "ready", "degraded": degraded} if degraded else {"status": "ready"})

    if metrics is not None:

        @routes.get("/metrics", summary="Prometheus metrics", response_class=Response)
        async def expose() -> Response:
            model_servers = ModelServerSeries(await serving.model_server_metrics())
            return Response(metrics.expose() + model_servers.expose(), media_type=CONTENT_TYPE_LATEST)

    return routes

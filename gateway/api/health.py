"""GET /healthz, /readyz and /metrics."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from gateway.metrics import Metrics
from gateway.metrics.modelservers import ModelServerSeries
from gateway.serving import Serving

_OPENMETRICS = "application/openmetrics-text"


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
        missing = await serving.model_reports.missing()
        if missing:
            return JSONResponse({"status": "not ready", "missing": missing}, status_code=503)
        degraded = serving.degraded()
        return JSONResponse({"status": "ready", "degraded": degraded} if degraded else {"status": "ready"})

    if metrics is not None:

        @routes.get("/metrics", summary="Prometheus metrics", response_class=Response)
        async def expose(request: Request) -> Response:
            model_servers = ModelServerSeries(await serving.model_reports.metrics())
            everything = metrics.collected(model_servers)
            if _takes_openmetrics(request.headers.get("accept", "")):
                body = openmetrics.generate_latest(everything)  # type: ignore[no-untyped-call]
                return Response(body, media_type=openmetrics.CONTENT_TYPE_LATEST)
            return Response(generate_latest(everything), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return routes


def _takes_openmetrics(accept: str) -> bool:
    """Whether a scraper reads the format that has exemplars: Prometheus does."""
    return any(part.partition(";")[0].strip() == _OPENMETRICS for part in accept.lower().split(","))

"""The admin API: viewers read, operators change things, owners change who may. Errors are problem details."""

from fastapi import APIRouter, Depends
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel, Field

from gateway.api.admin import audit, cache, events, keys, models, tenants, tiers, upstreams, usage
from gateway.api.admin.access import Identify, Operator
from gateway.api.problems import documented, problem
from gateway.dashboard.live import Live
from gateway.metrics import Metrics
from gateway.serving import Serving
from gateway.settings import ConfigError
from gateway.stores.audit import Subject


class Reloading(BaseModel):
    """Every worker reads the configuration again within the second."""

    status: str = "reloading"
    changes: list[str] = Field(
        description="What is different from what this worker runs with.", examples=[["models.chat: changed"]]
    )


def router(serving: Serving, metrics: Metrics, live: Live) -> APIRouter:
    """All routes below /admin."""
    key = HTTPBearer(auto_error=False, scheme_name="AdminKey", description="A key of the admin API.")
    routes = APIRouter(
        prefix="/admin",
        tags=["Admin"],
        dependencies=[Depends(key), Depends(Identify(serving))],
        responses=documented(401, 403, 503),
    )
    for part in (keys, tiers, tenants, upstreams, models, audit, usage):
        routes.include_router(part.router(serving))
    routes.include_router(cache.router(serving, metrics.cache_totals))
    routes.include_router(events.router(serving, live))

    @routes.post(
        "/reload",
        status_code=202,
        summary="Read the configuration again",
        response_model=Reloading,
        responses=documented(422),
    )
    async def reload(by: Operator) -> Reloading | Response:
        try:
            changes = serving.ask_for_reload()
        except ConfigError as error:
            detail = "The configuration has faults; the old one keeps running."
            return problem(422, detail, errors=str(error).splitlines())
        await serving.stores.audit.write(by.author, "reload", Subject.CONFIGURATION, changes=changes)
        return Reloading(changes=changes)

    return routes

"""/admin/upstreams: how upstreams are, and taking them out and back in by hand."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from gateway.api.admin.access import Operator
from gateway.api.problems import problem
from gateway.serving import Serving
from gateway.stores.orders import Action

Name = Annotated[str, Path(description="A provider, one of its accounts (provider#2), or account/model.")]


class UpstreamView(BaseModel):
    """One upstream as the worker that answers sees it; times in seconds."""

    upstream: str = Field(description="The provider's account.")
    model: str
    state: str = Field(description="closed (in rotation), open, half-open, draining, disabled or blocked.")
    why: str = Field(description="What brought it into this state.")
    next_probe: float | None = Field(
        description="Time until it is tried again; null when nothing is planned."
    )
    limit: int = Field(description="Concurrency that it is found to allow.")
    inflight: int
    waiting: int = Field(description="Calls that wait for their turn.")
    held_off: float = Field(description="How long it still wants to hear nothing from us.")
    first_token: float | None = Field(description="Recent time to the first token; null when unknown.")
    error_ratio: float
    status_page: str | None = Field(description="What its provider's status page says; null if not watched.")
    weight: float = Field(description="Its share among equals now, by schedule and by health.")


def router(serving: Serving) -> APIRouter:
    """The routes over upstreams."""
    routes = APIRouter(prefix="/upstreams")

    @routes.get("", summary="List upstreams")
    async def list_upstreams() -> list[UpstreamView]:
        return [UpstreamView(**_shown(asdict(report))) for report in serving.upstreams.reports()]

    @routes.post("/{name:path}/drain", summary="Send it no new calls", responses={404: {}})
    async def drain(name: Name, _: Operator) -> Response:
        return await _order(name, Action.DRAIN)

    @routes.post("/{name:path}/resume", summary="Take it back into rotation", responses={404: {}})
    async def resume(name: Name, _: Operator) -> Response:
        return await _order(name, Action.RESUME)

    @routes.post("/{name:path}/probe", summary="Ask it now whether it answers", responses={404: {}})
    async def probe(name: Name, _: Operator) -> Response:
        return await _order(name, Action.PROBE)

    async def _order(name: str, action: Action) -> Response:
        if not serving.upstreams.knows(name):
            return problem(404, f"There is no upstream {name}. GET /admin/upstreams lists them.")
        await serving.stores.orders.give(name, action)
        await serving.follow_orders()
        return JSONResponse({"upstream": name, "ordered": action.value}, status_code=202)

    return routes


def _shown(report: dict[str, Any]) -> dict[str, Any]:
    return {field: report[field] for field in UpstreamView.model_fields}

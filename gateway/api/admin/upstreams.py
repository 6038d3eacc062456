"""/admin/upstreams: how upstreams are, and taking them out and back in by hand."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from gateway.api.admin.access import Actor, Operator
from gateway.api.problems import documented
from gateway.serving import Serving
from gateway.stores.orders import Action

Name = Annotated[
    str,
    Path(
        description="A provider, one of its accounts (provider#2), or account/model.",
        pattern=r"^[^\x00-\x1f\x7f]+$",
    ),
]


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


class Ordered(BaseModel):
    """An order that every worker obeys within a second."""

    upstream: str
    ordered: Action


def router(serving: Serving) -> APIRouter:
    """The routes over upstreams."""
    routes = APIRouter(prefix="/upstreams")

    @routes.get("", summary="List upstreams")
    async def list_upstreams() -> list[UpstreamView]:
        return [UpstreamView(**_shown(asdict(report))) for report in serving.upstreams.reports()]

    @routes.post(
        "/{name:path}/drain", summary="Send it no new calls", status_code=202, responses=documented(404)
    )
    async def drain(name: Name, by: Operator) -> Ordered:
        return await _order(name, Action.DRAIN, by)

    @routes.post(
        "/{name:path}/resume",
        summary="Take it back into rotation",
        status_code=202,
        responses=documented(404),
    )
    async def resume(name: Name, by: Operator) -> Ordered:
        return await _order(name, Action.RESUME, by)

    @routes.post(
        "/{name:path}/probe",
        summary="Ask it now whether it answers",
        status_code=202,
        responses=documented(404),
    )
    async def probe(name: Name, by: Operator) -> Ordered:
        return await _order(name, Action.PROBE, by)

    async def _order(name: str, action: Action, by: Actor) -> Ordered:
        if not serving.upstreams.knows(name):
            raise HTTPException(404, f"There is no upstream {name}. GET /admin/upstreams lists them.")
        await serving.stores.orders.give(name, action, by.author)
        await serving.changes.tell()
        return Ordered(upstream=name, ordered=action)

    return routes


def _shown(report: dict[str, Any]) -> dict[str, Any]:
    return {field: report[field] for field in UpstreamView.model_fields}

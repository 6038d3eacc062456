"""/admin/tiers: the classes of service, changed without a restart."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends
from fastapi.responses import Response
from pydantic import Field
from starlette.exceptions import HTTPException

from gateway.api.admin.access import Operator
from gateway.api.admin.definitions import DefinitionView, Shelf
from gateway.api.admin.names import PathName
from gateway.api.admin.preconditions import Preconditions, preconditions
from gateway.api.openapi import MERGE_PATCH
from gateway.api.problems import documented
from gateway.serving import Serving
from gateway.settings import DEFAULT_TIER, Tier

Meant = Annotated[Preconditions, Depends(preconditions)]
_EXAMPLE = {
    "limits": {"requests": ["10/minute", "50/day"], "tokens": "20000/minute", "concurrency": 2},
    "weight": 1,
    "share": "10%",
    "queue": {"max_wait": "20s"},
}


class TierView(DefinitionView):
    """A tier as it is in force."""

    weight: float = Field(description="Its part of room that is lent.")
    share: str | None = Field(
        description="Its own part of the room; null is a part of what the others leave."
    )
    queue: dict[str, Any] = Field(examples=[{"max_wait": "20s"}])


def router(serving: Serving) -> APIRouter:
    """The routes over tiers."""
    routes = APIRouter(prefix="/tiers")
    shelf = Shelf(
        serving,
        serving.stores.tiers,
        Tier.model_validate,
        noun="tier",
        declared=lambda: serving.settings.tiers,
        builtin={DEFAULT_TIER: Tier()},
    )

    @routes.get("", summary="List tiers", response_model=list[TierView])
    async def list_tiers() -> Response:
        return await shelf.list()

    @routes.get("/{name}", summary="Show a tier", response_model=TierView, responses=documented(404))
    async def get(name: PathName) -> Response:
        return (await shelf.get(name)).answer()

    @routes.put(
        "/{name}",
        summary="Define a tier",
        response_model=TierView,
        responses={201: {"model": TierView, "description": "Created."}, **documented(412, 428)},
    )
    async def put(
        name: PathName, tier: Annotated[Tier, Body(examples=[_EXAMPLE])], meant: Meant, by: Operator
    ) -> Response:
        return await shelf.put(name, tier, meant, by)

    @routes.patch(
        "/{name}",
        summary="Change some fields of a tier",
        description="A JSON merge patch (RFC 7396): null takes a field back to its default.",
        response_model=TierView,
        responses=documented(404, 412, 428),
        openapi_extra={MERGE_PATCH: "Tier"},
    )
    async def patch(
        name: PathName,
        patch: Annotated[dict[str, Any], Body(examples=[{"limits": {"requests": "20/minute"}}])],
        meant: Meant,
        by: Operator,
    ) -> Response:
        return await shelf.patch(name, patch, meant, by)

    @routes.delete(
        "/{name}",
        status_code=204,
        summary="Delete a tier",
        description="One that the file declares too is as the file has it again.",
        responses=documented(404, 409, 412, 428),
    )
    async def delete(name: PathName, meant: Meant, by: Operator) -> Response:
        users = await _users(serving, name)

        def refuse() -> None:
            if users:
                raise HTTPException(
                    409, f"The tier {name} is in use by {users}. Give them another tier first."
                )

        return await shelf.delete(name, meant, by, refuse)

    return routes


async def _users(serving: Serving, tier: str) -> str:
    """Who names the tier, in words; empty if nobody does."""
    declared = serving.settings.keys
    keys = await serving.stores.keys.count(tier=tier) + sum(key.tier == tier for key in declared)
    tenants = sum(tenant.tier == tier for tenant in serving.tiers.tenants.values())
    counts = {"key": keys, "tenant": tenants}
    return " and ".join(f"{count} {what}{'s' * (count > 1)}" for what, count in counts.items() if count)

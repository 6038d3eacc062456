"""/admin/tenants: customers, with limits over all of their keys.

A tenant that nobody defined exists by being named in a key, and has no limits of its own.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Body
from fastapi.responses import Response
from pydantic import Field
from starlette.exceptions import HTTPException

from gateway.api.admin.access import Operator
from gateway.api.admin.definitions import DefinitionView, Shelf
from gateway.api.admin.names import PathName
from gateway.api.admin.tiers import Meant
from gateway.api.openapi import MERGE_PATCH
from gateway.api.problems import documented
from gateway.serving import Serving
from gateway.settings import Tenant

_EXAMPLE = {"limits": {"spend": "50/month"}, "tier": "pro", "zone": "Europe/Berlin", "note": "Acme Inc."}


class TenantView(DefinitionView):
    """A tenant as it is in force."""

    tier: str | None = Field(description="The tier of its keys that name none.")
    note: str | None = Field(description="What people should know of it.")


def router(serving: Serving) -> APIRouter:
    """The routes over tenants."""
    routes = APIRouter(prefix="/tenants")
    shelf = Shelf(
        serving,
        serving.stores.tenants,
        Tenant.model_validate,
        noun="tenant",
        declared=lambda: serving.settings.tenants,
        builtin={},
    )

    @routes.get("", summary="List tenants", response_model=list[TenantView])
    async def list_tenants() -> Response:
        return await shelf.list()

    @routes.get("/{name}", summary="Show a tenant", response_model=TenantView, responses=documented(404))
    async def get(name: PathName) -> Response:
        return (await shelf.get(name)).answer()

    @routes.put(
        "/{name}",
        summary="Define a tenant",
        response_model=TenantView,
        responses={201: {"model": TenantView, "description": "Created."}, **documented(409, 412, 428)},
    )
    async def put(
        name: PathName, tenant: Annotated[Tenant, Body(examples=[_EXAMPLE])], meant: Meant, by: Operator
    ) -> Response:
        require_tier(serving, tenant.tier)
        return await shelf.put(name, tenant, meant, by)

    @routes.patch(
        "/{name}",
        summary="Change some fields of a tenant",
        description="A JSON merge patch (RFC 7396): null takes a field back to its default.",
        response_model=TenantView,
        responses=documented(404, 409, 412, 428),
        openapi_extra={MERGE_PATCH: "Tenant"},
    )
    async def patch(
        name: PathName,
        patch: Annotated[dict[str, Any], Body(examples=[{"limits": {"spend": "80/month"}}])],
        meant: Meant,
        by: Operator,
    ) -> Response:
        tier = patch.get("tier")
        require_tier(serving, tier if isinstance(tier, str) else None)
        return await shelf.patch(name, patch, meant, by)

    @routes.delete(
        "/{name}",
        status_code=204,
        summary="Delete what is defined of a tenant",
        description="Its keys stay. One that the file declares too is as the file has it again.",
        responses=documented(404, 409, 412, 428),
    )
    async def delete(name: PathName, meant: Meant, by: Operator) -> Response:
        return await shelf.delete(name, meant, by)

    return routes


def require_tier(serving: Serving, tier: str | None) -> None:
    """Raise 409 where nobody has defined this tier."""
    known = serving.tiers.tiers
    if tier is not None and tier not in known:
        raise HTTPException(409, f"There is no tier {tier}; there are {', '.join(sorted(known))}.")

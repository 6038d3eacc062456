"""/admin/keys: making, listing, changing, rotating and deleting API keys."""

from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from gateway.api.admin.access import Actor, Operator
from gateway.api.admin.key_views import CreatedKey, KeyPatch, KeyView, NewKey, key_view
from gateway.api.admin.names import Filter, Limit, PathName, seconds
from gateway.api.admin.pages import next_page
from gateway.api.admin.tenants import require_tier
from gateway.api.problems import documented
from gateway.keyring import require
from gateway.serving import Serving
from gateway.settings import DEFAULT_TIER
from gateway.settings.units import Duration
from gateway.stores.keys import Key, LastOwner, Role

T = TypeVar("T")
_CURSOR = r"^[0-9]{1,15}(\.[0-9]{1,9})?:[^\x00-\x1f\x7f]{1,200}$"
_MONTH = 31 * 24 * 3600.0


def router(serving: Serving) -> APIRouter:
    """The routes over stored keys."""
    routes = APIRouter(prefix="/keys")
    _add_reads(routes, serving)
    _add_making(routes, serving)
    _add_changes(routes, serving)
    return routes


def _add_reads(routes: APIRouter, serving: Serving) -> None:
    store = serving.stores.keys

    @routes.get(
        "",
        summary="List keys, oldest first",
        description="Where there is more, the header Link has the next page (RFC 8288).",
        response_model=list[KeyView],
    )
    async def list_keys(
        request: Request,
        tenant: Filter = None,
        role: Role | None = None,
        after: Annotated[str | None, Query(pattern=_CURSOR, description="From a Link.")] = None,
        limit: Limit = 100,
    ) -> Response:
        created, _, key_id = ("" if after is None else after).partition(":")
        cursor = None if after is None else (float(created), key_id)
        found = await store.page(tenant=tenant, role=role, after=cursor, limit=limit)
        more = {}
        if len(found) == limit:
            more = next_page(request, after=f"{found[-1].created!r}:{found[-1].id}")
        return JSONResponse([key_view(key).model_dump(mode="json") for key in found], headers=more)

    @routes.get("/{key_id}", summary="Show a key", responses=documented(404))
    async def get(key_id: PathName) -> KeyView:
        return key_view(await find(serving, key_id))


def _add_making(routes: APIRouter, serving: Serving) -> None:
    store = serving.stores.keys

    @routes.post("", status_code=201, summary="Make a key", responses=documented(409))
    async def create(new: NewKey, by: Operator) -> CreatedKey:
        require_role(by, new.role)
        require_tier(serving, new.tier)
        key, secret = await store.create(
            name=new.name,
            tenant=new.tenant,
            tier=new.tier or serving.tiers.tenant(new.tenant).tier or DEFAULT_TIER,
            role=new.role,
            models=None if new.models is None else tuple(new.models),
            expires=seconds(new.expires),
            limits=new.limits,
            by=by.author,
        )
        await serving.changes.tell()
        return CreatedKey(**key_view(key).model_dump(), key=secret)


def _add_changes(routes: APIRouter, serving: Serving) -> None:
    store = serving.stores.keys

    @routes.patch("/{key_id}", summary="Change some fields of a key", responses=documented(404, 409))
    async def update(key_id: PathName, patch: KeyPatch, by: Operator) -> KeyView:
        require_role(by, (await find(serving, key_id)).role)
        require_tier(serving, patch.get("tier"))
        changes: dict[str, Any] = dict(patch)
        if changes.get("models") is not None:
            changes["models"] = tuple(changes["models"])
        if "expires" in changes:
            changes["expires"] = seconds(changes["expires"])
        key = await store.update(key_id, changes, by=by.author)
        await serving.changes.tell()
        return key_view(found_or_missing(key, key_id))

    @routes.post(
        "/{key_id}/rotate",
        summary="Give a key another secret",
        description="The one before it opens the same for as long as `grace` says, at most 31 days.",
        responses=documented(404),
    )
    async def rotate(
        key_id: PathName, by: Operator, grace: Annotated[Duration, Query(le=_MONTH)] = 0.0
    ) -> CreatedKey:
        require_role(by, (await find(serving, key_id)).role)
        rotated = await store.rotate(key_id, grace, by=by.author)
        await serving.changes.tell()
        key, secret = found_or_missing(rotated, key_id)
        return CreatedKey(**key_view(key).model_dump(), key=secret)

    @routes.delete("/{key_id}", status_code=204, summary="Delete a key", responses=documented(404, 409))
    async def delete(key_id: PathName, by: Operator) -> Response:
        require_role(by, (await find(serving, key_id)).role)
        try:
            await store.delete(key_id, by=by.author, keep_owner=serving.settings.admin.key is None)
        except LastOwner:
            raise HTTPException(409, "This is the last owner's key. Make another one first.") from None
        await serving.changes.tell()
        return Response(status_code=204)


async def find(serving: Serving, key_id: str) -> Key:
    """The stored key of this id. Raises 404."""
    return found_or_missing(await serving.stores.keys.get(key_id), key_id)


def require_role(by: Actor, role: Role) -> None:
    """Only owners touch keys of the admin API. Raises PermissionDenied."""
    require(by.key, Role.OPERATOR if role is Role.CLIENT else Role.OWNER)


def found_or_missing(found: T | None, key_id: str) -> T:
    """What was found; 404 if nothing was."""
    if found is None:
        raise HTTPException(
            404, f"There is no stored key {key_id}. Keys of the configuration file are changed there."
        )
    return found

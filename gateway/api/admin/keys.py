"""/admin/keys: making, listing, showing and deleting API keys."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from gateway.api.admin.access import Operator
from gateway.api.problems import problem
from gateway.serving import Serving
from gateway.stores.keys import Key, Role

Name = Annotated[str, Field(min_length=1, max_length=200)]


class NewKey(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    tenant: Name
    tier: Name = "default"
    models: Annotated[list[Name], Field(min_length=1)] | None = None
    expires: AwareDatetime | None = None


class KeyView(BaseModel):
    """A key as the API shows it; ``hint`` is how its secret begins."""

    id: str
    name: str
    tenant: str
    tier: str
    models: list[str] | None
    hint: str
    created: datetime
    expires: datetime | None


class CreatedKey(KeyView):
    """A new key with its secret, which is shown this once."""

    key: str


def router(serving: Serving) -> APIRouter:
    """The routes over stored keys."""
    routes = APIRouter(prefix="/keys")
    store = serving.stores.keys

    @routes.post("", status_code=201, summary="Make a key")
    async def create(new: NewKey, _: Operator) -> CreatedKey:
        key, secret = await store.create(
            name=new.name,
            tenant=new.tenant,
            tier=new.tier,
            models=None if new.models is None else tuple(new.models),
            expires=None if new.expires is None else new.expires.timestamp(),
        )
        await serving.keyring.refresh()
        return CreatedKey(**_view(key).model_dump(), key=secret)

    @routes.get("", summary="List keys")
    async def list_keys(tenant: str | None = None) -> list[KeyView]:
        return [_view(key) for key in await store.list(tenant=tenant) if key.role is Role.CLIENT]

    @routes.get("/{key_id}", summary="Show a key", responses={404: {}})
    async def get(key_id: str) -> Response:
        key = await store.get(key_id)
        if key is None:
            return _no_key(key_id)
        return JSONResponse(_view(key).model_dump(mode="json"))

    @routes.delete("/{key_id}", status_code=204, summary="Delete a key", responses={404: {}})
    async def delete(key_id: str, _: Operator) -> Response:
        if not await store.delete(key_id):
            return _no_key(key_id)
        await serving.keyring.refresh()
        return Response(status_code=204)

    return routes


def _no_key(key_id: str) -> Response:
    return problem(404, f"There is no stored key {key_id}. Keys of the configuration file are changed there.")


def _view(key: Key) -> KeyView:
    return KeyView(
        id=key.id,
        name=key.name,
        tenant=key.tenant,
        tier=key.tier,
        models=None if key.models is None else list(key.models),
        hint=key.hint,
        created=datetime.fromtimestamp(key.created, UTC),
        expires=None if key.expires is None else datetime.fromtimestamp(key.expires, UTC),
    )

"""The admin API: keys, and reloading the configuration. Its errors are problem details."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from gateway.api.problems import problem
from gateway.api.request import bearer
from gateway.serving import Serving
from gateway.settings import ConfigError
from gateway.stores.keys import Key, KeyStore, Role

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


def router(serving: Serving, keys: KeyStore) -> APIRouter:
    """The routes below /admin, open to owners' keys."""

    def authorize(request: Request) -> None:
        serving.keyring.identify(bearer(request.scope), serving.wall_time(), Role.OWNER)

    documented = HTTPBearer(auto_error=False, description="An admin key.")
    routes = APIRouter(
        prefix="/admin", tags=["Admin"], dependencies=[Depends(documented), Depends(authorize)]
    )

    @routes.post("/keys", status_code=201, summary="Make a key")
    async def create(new: NewKey) -> CreatedKey:
        key, secret = await keys.create(
            name=new.name,
            tenant=new.tenant,
            tier=new.tier,
            models=None if new.models is None else tuple(new.models),
            expires=None if new.expires is None else new.expires.timestamp(),
        )
        await serving.keyring.refresh()
        return CreatedKey(**_view(key).model_dump(), key=secret)

    @routes.get("/keys", summary="List keys")
    async def list_keys(tenant: str | None = None) -> list[KeyView]:
        return [_view(key) for key in await keys.list(tenant=tenant) if key.role is Role.CLIENT]

    @routes.get("/keys/{key_id}", summary="Show a key", responses={404: {}})
    async def get(key_id: str) -> Response:
        key = await keys.get(key_id)
        if key is None:
            return _no_key(key_id)
        return JSONResponse(_view(key).model_dump(mode="json"))

    @routes.delete("/keys/{key_id}", status_code=204, summary="Delete a key", responses={404: {}})
    async def delete(key_id: str) -> Response:
        if not await keys.delete(key_id):
            return _no_key(key_id)
        await serving.keyring.refresh()
        return Response(status_code=204)

    @routes.post("/reload", summary="Read the configuration again", responses={422: {}})
    async def reload() -> Response:
        try:
            serving.reload_everywhere()
        except ConfigError as error:
            return problem(
                422,
                "The configuration has faults; the old one keeps running.",
                errors=str(error).splitlines(),
            )
        return JSONResponse({"status": "reloaded"})

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

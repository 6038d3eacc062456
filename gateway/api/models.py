"""GET /v1/models and /v1/models/{id}: what a key may ask for."""

from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPBearer

from gateway.api.openapi import call_errors
from gateway.api.request import bearer
from gateway.catalogue import model_not_found
from gateway.serving import Serving
from gateway.stores.keys import Key

CLIENT_KEY = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="A client's key.")
"""For the description alone: keys are looked at by the keyring."""


def router(serving: Serving) -> APIRouter:
    """The routes over the models that ``serving`` knows."""
    routes = APIRouter(prefix="/v1/models", tags=["OpenAI"], dependencies=[Depends(CLIENT_KEY)])

    def key_of(request: Request) -> Key:
        return serving.keyring.identify(bearer(request.scope), serving.wall_time())

    @routes.get("", summary="List models", openapi_extra={"responses": call_errors(401, 403)})
    async def list_models(request: Request) -> dict[str, Any]:
        key = key_of(request)
        names = [name for name in serving.catalogue.names() if serving.keyring.allows(key, name)]
        return {"object": "list", "data": [_model(name, serving.started) for name in names]}

    @routes.get(
        "/{model:path}",
        summary="Retrieve a model",
        openapi_extra={"responses": call_errors(401, 403, 404)},
    )
    async def get_model(request: Request, model: str) -> dict[str, Any]:
        key = key_of(request)
        if not serving.keyring.allows(key, model) or serving.catalogue.find(model) is None:
            raise model_not_found(model)
        return _model(model, serving.started)

    return routes


def _model(name: str, created: float) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": int(created), "owned_by": "tidegate"}

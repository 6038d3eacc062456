"""The admin API, open to owners' keys. Its errors are problem details."""

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer

from gateway.api.admin import keys, upstreams
from gateway.api.problems import problem
from gateway.api.request import bearer
from gateway.serving import Serving
from gateway.settings import ConfigError
from gateway.stores.keys import Role


def router(serving: Serving) -> APIRouter:
    """All routes below /admin."""

    def authorize(request: Request) -> None:
        serving.keyring.identify(bearer(request.scope), serving.wall_time(), Role.OWNER)

    documented = HTTPBearer(auto_error=False, description="An admin key.")
    routes = APIRouter(
        prefix="/admin", tags=["Admin"], dependencies=[Depends(documented), Depends(authorize)]
    )
    routes.include_router(keys.router(serving))
    routes.include_router(upstreams.router(serving))

    @routes.post("/reload", status_code=202, summary="Read the configuration again", responses={422: {}})
    async def reload() -> Response:
        try:
            serving.ask_for_reload()
        except ConfigError as error:
            detail = "The configuration has faults; the old one keeps running."
            return problem(422, detail, errors=str(error).splitlines())
        return JSONResponse({"status": "reloading"}, status_code=202)

    return routes

"""The admin API: viewers read, operators change things, owners change who may. Errors are problem details."""

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer

from gateway.api.admin import keys, upstreams
from gateway.api.admin.access import Identify, Operator
from gateway.api.problems import problem
from gateway.serving import Serving
from gateway.settings import ConfigError


def router(serving: Serving) -> APIRouter:
    """All routes below /admin."""
    documented = HTTPBearer(auto_error=False, description="An admin key.")
    routes = APIRouter(
        prefix="/admin", tags=["Admin"], dependencies=[Depends(documented), Depends(Identify(serving))]
    )
    routes.include_router(keys.router(serving))
    routes.include_router(upstreams.router(serving))

    @routes.post("/reload", status_code=202, summary="Read the configuration again", responses={422: {}})
    async def reload(_: Operator) -> Response:
        try:
            serving.ask_for_reload()
        except ConfigError as error:
            detail = "The configuration has faults; the old one keeps running."
            return problem(422, detail, errors=str(error).splitlines())
        return JSONResponse({"status": "reloading"}, status_code=202)

    return routes

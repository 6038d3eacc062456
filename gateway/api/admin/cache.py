"""/admin/cache: what the cache holds and did, and forgetting answers."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from gateway.api.admin.access import Operator
from gateway.api.cache_view import CacheView, cache_view
from gateway.api.problems import documented, problem
from gateway.cache.books import BookUnreachable
from gateway.metrics.caches import CacheTotals
from gateway.serving import Serving
from gateway.stores.audit import Subject

_FINGERPRINT = "^[0-9a-f]{64}$"

Tenant = Annotated[str | None, Query(min_length=1, description="Only this tenant's own answers.")]
Model = Annotated[str | None, Query(min_length=1, description="Only answers to calls for this model's name.")]
Fingerprint = Annotated[
    str | None,
    Query(pattern=_FINGERPRINT, description="Only the answer under this key: x-tidegate-cache-key."),
]


def router(serving: Serving, totals: Callable[[], CacheTotals]) -> APIRouter:
    """The routes over the cache; ``totals`` tells what all workers counted."""
    routes = APIRouter(prefix="/cache")

    @routes.get("", summary="Show what the cache holds and did")
    async def show() -> CacheView:
        return cache_view(totals())

    @routes.delete("", status_code=204, summary="Forget answers", responses=documented(400, 503))
    async def purge(
        by: Operator, tenant: Tenant = None, model: Model = None, key: Fingerprint = None
    ) -> Response:
        """Forget the answers that everything named applies to, and all of them if nothing is named.

        Holds at every worker within two seconds, and for what is being answered now as well.
        """
        named = {"tenant": tenant, "model": model, "key": key}
        changes = [f"{what}: {value}" for what, value in named.items() if value is not None]
        try:
            await serving.caching.purge(tenant, model, key)
        except BookUnreachable as error:
            return problem(503, f"The shared store doesn't answer, so that nothing was forgotten: {error}")
        await serving.stores.audit.write(by.author, "purge", Subject.CACHE, changes=changes)
        await serving.changes.tell()
        return Response(status_code=204)

    return routes

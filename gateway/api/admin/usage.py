"""/admin/usage: what was used and what it cost, summed by day, and request by request."""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import AwareDatetime, Field
from starlette.exceptions import HTTPException

from gateway.api.admin import csv
from gateway.api.admin import usage_views as views
from gateway.api.admin.names import Filter, Limit, PathName, seconds
from gateway.api.admin.pages import next_page
from gateway.api.problems import documented
from gateway.serving import Serving
from gateway.stores.ledger import SUMS
from gateway.stores.usage import BadCursor, Period, Selection, UsageReader

_MOST_ROWS = 100_000
_USUAL_DAYS = 30
_LATEST = 1e11
_BY = ("day", "tenant", "key", "tier", "model", "upstream", "served_model")
_ONE_OF = f"({'|'.join(_BY)})"
By = Annotated[str, Field(pattern=f"^{_ONE_OF}(,{_ONE_OF}){{0,6}}$", examples=["model", "day,tenant"])]
Format = Annotated[
    Literal["json", "csv"] | None,
    Query(description="Without it the header Accept decides: text/csv for CSV."),
]


class Days:
    """Dependency: the days that are asked for, in UTC and both included."""

    def __init__(
        self,
        start: Annotated[
            date | None, Query(alias="from", description=f"Default: {_USUAL_DAYS} days in all.")
        ] = None,
        end: Annotated[date | None, Query(alias="to", description="Included. Default: today.")] = None,
    ) -> None:
        self.start = start
        self.end = end

    def period(self, now: float) -> Period:
        """The period. Raises HTTPException where it is none."""
        end = self.end or datetime.fromtimestamp(now, UTC).date()
        start = self.start or max(end, date.min + timedelta(_USUAL_DAYS)) - timedelta(_USUAL_DAYS - 1)
        if start > end:
            raise HTTPException(400, f"'from' is {start} and 'to' is {end}: give a first and a last day.")
        return Period(start, end)


def router(serving: Serving) -> APIRouter:
    """The routes over the usage ledger, which every key of the admin API may read."""
    routes = APIRouter()
    _add_sums(routes, serving)
    _add_requests(routes, serving.stores.usage)
    return routes


def _add_sums(routes: APIRouter, serving: Serving) -> None:
    async def summed(
        request: Request, days: Days, by: list[str], matching: Mapping[str, str | None], form: str | None
    ) -> Response:
        period = days.period(serving.wall_time())
        groups = list(dict.fromkeys(",".join(by).split(",")))
        fields = (*groups, *views.SUMS)
        columns = [views.COLUMNS.get(name, name) for name in groups]
        found = await serving.stores.usage.sums(period, columns, _given(matching), most=_MOST_ROWS + 1)
        if len(found) > _MOST_ROWS:
            raise HTTPException(400, f"More than {_MOST_ROWS} rows: ask for fewer days, or by less.")
        if csv.wants_csv(request, form):
            table = [views.listed(row, fields) for row in found]
            return csv.answer(fields, _one_page(table), f"usage-{period.start}-{period.end}")
        totals = {name: sum(row[name] for row in found) for name in SUMS}
        return JSONResponse(
            {
                "from": period.start.isoformat(),
                "to": period.end.isoformat(),
                "by": groups,
                "rows": [views.shown(row, fields) for row in found],
                "totals": views.shown(totals, views.SUMS),
            }
        )

    @routes.get(
        "/usage",
        summary="What was used and what it cost, by day, tenant, key, tier, model or upstream",
        response_model=views.UsageView,
        responses={**views.SHOWN, **documented(400)},
    )
    async def usage(  # noqa: PLR0913, PLR0917 - the conditions
        request: Request,
        days: Annotated[Days, Depends()],
        by: Annotated[list[By], Query(max_length=7)] = ["day"],  # noqa: B006 - FastAPI copies it
        tenant: Filter = None,
        key: Filter = None,
        tier: Filter = None,
        model: Filter = None,
        upstream: Filter = None,
        form: Annotated[Format, Query(alias="format")] = None,
    ) -> Response:
        matching = {"tenant": tenant, "key_id": key, "tier": tier, "model": model, "upstream": upstream}
        return await summed(request, days, by, matching, form)

    @routes.get(
        "/tenants/{name}/usage",
        summary="What a tenant used and what it cost",
        response_model=views.UsageView,
        responses={**views.SHOWN, **documented(400)},
    )
    async def tenant_usage(
        request: Request,
        name: PathName,
        days: Annotated[Days, Depends()],
        by: Annotated[list[By], Query(max_length=7)] = ["day"],  # noqa: B006 - FastAPI copies it
        form: Annotated[Format, Query(alias="format")] = None,
    ) -> Response:
        return await summed(request, days, by, {"tenant": name}, form)


def _add_requests(routes: APIRouter, reader: UsageReader) -> None:
    @routes.get(
        "/usage/requests",
        summary="Finished requests, newest first",
        description="Where there is more, the header Link has the next page (RFC 8288); CSV has all of them.",
        response_model=list[views.RequestRow],
        responses={**views.LISTED, **documented(400)},
    )
    async def requests(  # noqa: PLR0913, PLR0917 - the conditions
        request: Request,
        since: Annotated[AwareDatetime | None, Query()] = None,
        until: Annotated[AwareDatetime | None, Query(description="Before this time.")] = None,
        tenant: Filter = None,
        key: Filter = None,
        tier: Filter = None,
        model: Filter = None,
        upstream: Filter = None,
        outcome: Filter = None,
        request_id: Filter = None,
        after: Annotated[str | None, Query(max_length=400, description="From the header Link.")] = None,
        limit: Limit = 100,
        form: Annotated[Format, Query(alias="format")] = None,
    ) -> Response:
        matching = {"tenant": tenant, "key_id": key, "tier": tier, "model": model, "upstream": upstream}
        matching |= {"outcome": outcome, "request": request_id}
        start, end = seconds(since) or 0.0, seconds(until)
        selection = Selection(start, _LATEST if end is None else end, _given(matching))
        names = tuple(views.RequestRow.model_fields)
        if csv.wants_csv(request, form):
            pages = reader.pages(selection)
            tables = ([views.listed(row, names) for row in rows] async for rows in pages)
            return csv.answer(names, tables, "requests")
        try:
            rows, cursor = await reader.page(selection, most=limit, cursor=after)
        except BadCursor:
            raise HTTPException(400, "'after' is what the header Link of the page before says.") from None
        more = {} if cursor is None else next_page(request, after=cursor)
        return JSONResponse([views.shown(row, names) for row in rows], headers=more)


def _given(matching: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in matching.items() if value is not None}


async def _one_page(rows: list[dict[str, Any]]) -> AsyncIterator[list[dict[str, Any]]]:
    yield rows

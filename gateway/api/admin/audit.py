"""/admin/audit: who changed what, and when."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import AwareDatetime, BaseModel, Field

from gateway.api.admin.names import Filter, Limit, moment, seconds
from gateway.api.admin.pages import next_page
from gateway.serving import Serving
from gateway.stores.audit import Entry, Subject, Wanted

_NEWEST = 2**31 - 1


class ActorView(BaseModel):
    """The key that did it."""

    id: str
    name: str
    role: str


class EntryView(BaseModel):
    """One change."""

    number: int
    at: datetime
    actor: ActorView
    request_id: str = Field(description="As in the access log.")
    action: str = Field(examples=["create", "update", "rotate", "delete", "drain", "reload"])
    subject: Subject
    name: str = Field(description="The id or the name of what was changed.")
    before: dict[str, Any] | None = Field(description="What it was; null if there was nothing.")
    after: dict[str, Any] | None = Field(description="What it became; null if it is gone.")


def router(serving: Serving) -> APIRouter:
    """The route over the audit."""
    routes = APIRouter(prefix="/audit")

    @routes.get(
        "",
        summary="Who changed what, newest first",
        description="Where there is more, the header Link has the next page (RFC 8288).",
        response_model=list[EntryView],
    )
    async def read(  # noqa: PLR0913, PLR0917 - the conditions
        request: Request,
        subject: Annotated[Subject | None, Query()] = None,
        name: Filter = None,
        actor: Annotated[Filter, Query(description="The id of the key that did it.")] = None,
        action: Filter = None,
        since: Annotated[AwareDatetime | None, Query()] = None,
        until: Annotated[AwareDatetime | None, Query()] = None,
        below: Annotated[int | None, Query(ge=1, le=_NEWEST, description="Only smaller numbers.")] = None,
        limit: Limit = 100,
    ) -> Response:
        wanted = Wanted(subject, name, actor, action, seconds(since), seconds(until), below)
        entries = await serving.stores.audit.read(wanted, limit)
        more = next_page(request, below=str(entries[-1].number)) if len(entries) == limit else {}
        return JSONResponse([_view(entry).model_dump(mode="json") for entry in entries], headers=more)

    return routes


def _view(entry: Entry) -> EntryView:
    author = entry.author
    return EntryView(
        number=entry.number,
        at=moment(entry.at),
        actor=ActorView(id=author.id, name=author.name, role=author.role),
        request_id=author.request_id,
        action=entry.action,
        subject=entry.subject,
        name=entry.name,
        before=None if entry.before is None else dict(entry.before),
        after=None if entry.after is None else dict(entry.after),
    )

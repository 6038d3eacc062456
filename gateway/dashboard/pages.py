"""/dashboard: the live page, its sign-in, and its stream of changes.

What the page changes it asks of the admin API, which checks roles and ETags and writes the audit. Its policy
allows nothing but this gateway's own scripts, styles and answers.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from http import HTTPStatus
from urllib.parse import parse_qs

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles

from gateway.api.admin.events import event_stream, still_opens
from gateway.dashboard import rendering
from gateway.dashboard.live import Live
from gateway.dashboard.session import credential, require_same_origin, sign_in, sign_out
from gateway.dashboard.views import GatewayView
from gateway.serving import Serving
from gateway.stores.keys import Key, Role
from gateway.wire import sse
from policies.errors import AuthenticationFailed, GatewayError, PermissionDenied

_SIGNED_OUT = b"event: signed-out\ndata:\n\n"
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-store",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}


def install(app: FastAPI, serving: Serving, live: Live) -> None:
    """Serve the page."""
    app.mount("/dashboard/static", StaticFiles(packages=[("gateway.dashboard", "static")]))
    app.include_router(_sessions(serving))
    app.include_router(_page(serving, live))


def _sessions(serving: Serving) -> APIRouter:
    routes = APIRouter(prefix="/dashboard", include_in_schema=False)

    @routes.post("/sign-in")
    async def enter(request: Request) -> Response:
        form = parse_qs((await request.body()).decode(errors="replace"))
        secret = form.get("key", [""])[0].strip()
        try:
            require_same_origin(request)
            serving.keyring.identify(secret, serving.wall_time(), Role.VIEWER)
        except GatewayError as error:
            return _sign_in_page(error)
        response = RedirectResponse("/dashboard", HTTPStatus.SEE_OTHER, _HEADERS)
        sign_in(response, request, secret)
        return response

    @routes.post("/sign-out")
    async def leave(request: Request) -> Response:
        require_same_origin(request)
        response = RedirectResponse("/dashboard", HTTPStatus.SEE_OTHER, _HEADERS)
        sign_out(response)
        return response

    return routes


def _page(serving: Serving, live: Live) -> APIRouter:
    routes = APIRouter(prefix="/dashboard", include_in_schema=False)
    latest: dict[bool, tuple[GatewayView, dict[str, str]]] = {}

    def rendered(view: GatewayView, key: Key) -> dict[str, str]:
        """The sections, rendered once for all who may see the same."""
        operator = key.role.covers(Role.OPERATOR)
        if operator not in latest or latest[operator][0] is not view:
            latest[operator] = (view, rendering.sections(view, operator=operator))
        return latest[operator][1]

    @routes.get("")
    async def show(request: Request) -> Response:
        secret = credential(request)
        try:
            key = serving.keyring.identify(secret, serving.wall_time(), Role.VIEWER)
        except GatewayError as error:
            return _sign_in_page(None if secret is None else error)
        return HTMLResponse(rendering.page(key, rendered(await live.look(), key)), headers=_HEADERS)

    @routes.get("/events")
    async def follow(request: Request) -> StreamingResponse:
        """The sections that changed, once a second."""
        secret = credential(request)
        key = serving.keyring.identify(secret, serving.wall_time(), Role.VIEWER)

        async def changes() -> AsyncGenerator[bytes]:
            shown: dict[str, str] = {}
            async with aclosing(live.views()) as views:
                async for view in views:
                    if not still_opens(serving, secret):
                        yield _SIGNED_OUT
                        return
                    fresh = rendered(view, key)
                    changed = [name for name, html in fresh.items() if shown.get(name) != html]
                    shown = fresh
                    html = "".join(rendering.partial(name, fresh[name]) for name in changed)
                    yield sse.message(html.encode())

        return event_stream(live, changes())

    return routes


def _sign_in_page(error: GatewayError | None) -> Response:
    """Ask for a key, and say what was wrong with the last one."""
    status = HTTPStatus.OK
    if isinstance(error, PermissionDenied):
        status = HTTPStatus.FORBIDDEN
    elif isinstance(error, AuthenticationFailed):
        status = HTTPStatus.UNAUTHORIZED
    fault = None if error is None else error.message
    return HTMLResponse(rendering.sign_in_page(fault), status, _HEADERS)

"""/admin/events: the gateway once a second, as server-sent events."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException

from gateway.api.problems import documented
from gateway.dashboard.live import MOST_LISTENERS, Live
from gateway.dashboard.session import credential
from gateway.serving import Serving
from gateway.stores.keys import Role
from gateway.wire import sse
from policies.errors import GatewayError

_RETRY = b"retry: 1000\n\n"
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


def event_stream(live: Live, events: AsyncGenerator[bytes]) -> StreamingResponse:
    """Answer with these messages. Raises 503 where too many listen already."""
    if live.full:
        raise HTTPException(
            503, f"{MOST_LISTENERS} listen at this worker already. Try again.", {"retry-after": "5"}
        )
    return StreamingResponse(_begun(events), media_type="text/event-stream", headers=_HEADERS)


async def _begun(events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(events):
        yield _RETRY
        async for event in events:
            yield event


def still_opens(serving: Serving, secret: str | None) -> bool:
    """Whether a listener's key opens the admin API even now."""
    try:
        serving.keyring.identify(secret, serving.wall_time(), Role.VIEWER)
    except GatewayError:
        return False
    return True


def router(serving: Serving, live: Live) -> APIRouter:
    """The route of the events."""
    routes = APIRouter(prefix="/events")

    @routes.get(
        "",
        summary="Follow the gateway, once a second",
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "Server-sent events; each is a GatewayView in JSON.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            **documented(503),
        },
    )
    async def follow(request: Request) -> StreamingResponse:
        """All workers of this gateway together. Ends when the worker drains or the key is no longer good."""
        secret = credential(request)

        async def messages() -> AsyncGenerator[bytes]:
            async with aclosing(live.views()) as views:
                async for view in views:
                    if not still_opens(serving, secret):
                        return
                    yield sse.message(view.model_dump_json().encode())

        return event_stream(live, messages())

    return routes

"""The outermost application: hands the hot endpoints their requests before any routing."""

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.access_log import AccessRecord
from gateway.api.request import header, request_id
from gateway.serving import Serving

_POLLED = frozenset({"/healthz", "/readyz", "/metrics"})
"""What machines ask every few seconds: logging it would bury the rest."""


class FrontDoor:
    """``endpoints`` answer POST at exactly their paths; ``rest`` answers everything else.

    The endpoints keep their own log; for the rest it is kept here, with a request id on every answer.
    """

    def __init__(self, rest: ASGIApp, endpoints: Mapping[str, ASGIApp], serving: Serving) -> None:
        self._rest = rest
        self._endpoints = endpoints
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        endpoint = self._endpoints.get(scope["path"]) if scope["method"] == "POST" else None
        if endpoint is not None:
            await endpoint(scope, receive, send)
        else:
            await self._serve_rest(scope, receive, send)

    async def _serve_rest(self, scope: Scope, receive: Receive, send: Send) -> None:
        serving = self._serving
        arrived = serving.clock.now()
        identity = request_id(scope, serving.rng)
        scope.setdefault("state", {})["request_id"] = identity
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", identity.encode())]
            await send(message)

        try:
            limited = _limited(scope, receive, serving.settings.server.max_body)
            await self._rest(scope, limited, send_with_id)
        finally:
            if serving.access_log is not None and scope["path"] not in _POLLED:
                record = AccessRecord(
                    request_id=identity,
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    outcome="ok" if status < 400 else "refused",  # noqa: PLR2004 - where HTTP's errors begin
                    duration=serving.clock.now() - arrived,
                )
                serving.access_log.write(record, serving.wall_time())


def _limited(scope: Scope, receive: Receive, limit: int) -> Receive:
    """``receive`` that ends a request whose body is over ``limit`` bytes, for whoever reads it, with 413."""
    declared = header(scope, b"content-length")
    size = 0 if declared is None else int(declared)
    read = 0

    async def receive_limited() -> Message:
        nonlocal read
        message = {} if size > limit else await receive()
        read += len(message.get("body", b""))
        if max(size, read) > limit:
            raise HTTPException(
                413, f"The body is larger than {limit} bytes, the most that this gateway takes."
            )
        return message

    return receive_limited

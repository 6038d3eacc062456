"""Smaller answers for clients that ask: gzip, br or zstd by Accept-Encoding.

The work is starlette-compress's. A stream is left alone: its chunks are small, it would be work at each of
them, and some proxies hold compressed streams back. A client that wants it nonetheless, over a slow link,
says ``x-tidegate-compress: stream``; each part is flushed then.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette_compress import CompressMiddleware

from gateway.api.request import header

_ENCODINGS = (b"gzip", b"br", b"zstd", b"*")
_SMALLEST = 1024
"""A body of fewer bytes fits a packet anyway."""
_LEVEL = 1
"""Fast: on JSON, higher levels cost several times as much for a tenth less."""
_PLAIN = "tidegate.plain"


class Compression:
    """Around the whole application. A client that doesn't ask costs a look at its headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._compressing = CompressMiddleware(
            self._choose, minimum_size=_SMALLEST, zstd_level=_LEVEL, brotli_quality=_LEVEL, gzip_level=_LEVEL
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = header(scope, b"accept-encoding") if scope["type"] == "http" else None
        if asked is None or not any(encoding in asked for encoding in _ENCODINGS):
            await self._app(scope, receive, send)
        else:
            await self._compressing({**scope, _PLAIN: send}, receive, send)

    async def _choose(self, scope: Scope, receive: Receive, compressed: Send) -> None:
        """Run the application with a ``send`` that lets streams pass by the compression."""
        if header(scope, b"x-tidegate-compress") == b"stream":
            await self._app(scope, receive, compressed)
            return
        send = compressed

        async def choose(message: Message) -> None:
            nonlocal send
            if message["type"] == "http.response.start" and _is_stream(message):
                send = scope[_PLAIN]
            await send(message)

        await self._app(scope, receive, choose)


def _is_stream(start: Message) -> bool:
    return any(
        name == b"content-type" and value.startswith(b"text/event-stream") for name, value in start["headers"]
    )

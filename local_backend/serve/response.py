"""The ASGI response of a generation: starts at the first event, stops when the client goes away.

Starlette's StreamingResponse sends its headers before anything is generated; here a failure before the first
event is still an ordinary HTTP error.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import orjson
from starlette.types import Message, Receive, Scope, Send

from local_backend.serve.embeddings import EmbeddingReply
from local_backend.serve.errors import ApiError
from local_backend.serve.reply import Outcome, Reply, event_bytes

_JSON = "application/json"
_EVENTS = "text/event-stream; charset=utf-8"


class GenerationResponse:
    """Sends a reply, as a stream where `events` are given.

    `on_end` hears the status sent (499: the client left first) and the outcome, once.
    """

    def __init__(
        self,
        reply: Reply | EmbeddingReply,
        events: AsyncGenerator[bytes] | None,
        on_end: Callable[[int, Outcome], None],
    ) -> None:
        self._reply = reply
        self._events = events
        self._on_end = on_end
        self._status = 499

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.create_task(
            self._send_whole(send) if self._events is None else self._send_stream(send, self._events)
        )
        gone = asyncio.create_task(_disconnect(receive))
        try:
            await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        except Exception:
            self._status = 500
            raise
        finally:
            self._reply.abort()
            work.cancel()
            gone.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
            self._on_end(self._status, self._reply.outcome)

    async def _send_whole(self, send: Send) -> None:
        try:
            body = await self._reply.whole()
        except ApiError as error:
            await self._send_json(send, error.status, orjson.dumps(error.body()))
        else:
            await self._send_json(send, 200, orjson.dumps(body))

    async def _send_stream(self, send: Send, stream: AsyncGenerator[bytes]) -> None:
        started = False
        try:
            async with aclosing(stream) as events:
                async for event in events:
                    if not started:
                        await self._start(send, 200, _EVENTS)
                        started = True
                    await send(_body(event, more=True))
        except ApiError as error:
            if not started:
                await self._send_json(send, error.status, orjson.dumps(error.body()))
                return
            await send(_body(event_bytes(error.body()), more=True))
        await send(_body(b"", more=False))
        self._status = 200

    async def _send_json(self, send: Send, status: int, body: bytes) -> None:
        await self._start(send, status, _JSON, len(body))
        await send(_body(body, more=False))
        self._status = status

    async def _start(self, send: Send, status: int, content_type: str, length: int | None = None) -> None:
        headers = [(b"content-type", content_type.encode()), (b"cache-control", b"no-store")]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})


def _body(body: bytes, more: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

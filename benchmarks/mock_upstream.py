"""A fast mock of an OpenAI-compatible provider, cheap enough to stand behind every gateway.

One process, uvloop and a raw protocol: no routing, no JSON parsing. Unary answers are one prebuilt
buffer. A stream is a role chunk, 64 content chunks, a finish chunk, a usage chunk where the caller asked
for one, and ``[DONE]``; every chunk is a write of its own, in a turn of the event loop of its own, so
that a gateway meets them one by one.

A request with a ``seed`` is answered with a text of its own (:func:`expected_text`), so that a caller
can tell a stream which was mixed with another's.
"""

import argparse
import asyncio
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import cast

import httptools
import uvloop

CHUNKS = 64
MODEL = "mock-model"
UNSEEDED = -1

_ASKS_STREAM = re.compile(rb'"stream"\s*:\s*true')
_ASKS_USAGE = re.compile(rb'"include_usage"\s*:\s*true')
_SEED = re.compile(rb'"seed"\s*:\s*(\d+)')
_USAGE = {"prompt_tokens": 24, "completion_tokens": CHUNKS, "total_tokens": 24 + CHUNKS}


def pieces(seed: int = UNSEEDED) -> list[str]:
    """The content deltas of one stream, in order."""
    if seed == UNSEEDED:
        return [f" w{number:02d}" for number in range(CHUNKS)]
    return [f" {seed}.{number}" for number in range(CHUNKS)]


def expected_text(seed: int = UNSEEDED) -> str:
    """The whole text of one answer, streamed or not."""
    return "".join(pieces(seed))


def _plain(document: object) -> bytes:
    body = json.dumps(document, separators=(",", ":")).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _framed(payload: str) -> bytes:
    """One SSE event as one HTTP chunk."""
    event = f"data: {payload}\n\n".encode()
    return f"{len(event):x}\r\n".encode() + event + b"\r\n"


def _chunk(choices: list[object], usage: object = None) -> str:
    document = {
        "id": "chatcmpl-BXmock0000000000000000000000",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": MODEL,
        "service_tier": "default",
        "system_fingerprint": "fp_mock",
        "choices": choices,
        "usage": usage,
    }
    return json.dumps(document, separators=(",", ":"))


def _delta(delta: dict[str, str], finish: str | None = None) -> str:
    return _chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}])


# What differs between content chunks is filled in, which is cheaper than making the JSON of each.
_BEFORE, _, _AFTER = _delta({"content": "@"}).partition("@")


@lru_cache(maxsize=4096)
def unary_reply(seed: int = UNSEEDED) -> bytes:
    """A whole chat completion as it goes over the wire (about 600 bytes of JSON without a seed)."""
    message: dict[str, object] = {
        "role": "assistant",
        "content": expected_text(seed),
        "refusal": None,
        "annotations": [],
    }
    return _plain(
        {
            "id": "chatcmpl-BXmock0000000000000000000000",
            "object": "chat.completion",
            "created": 1_760_000_000,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": _USAGE,
            "service_tier": "default",
            "system_fingerprint": "fp_mock",
        },
    )


@lru_cache(maxsize=4096)
def stream_frames(seed: int = UNSEEDED, *, usage: bool = False) -> tuple[bytes, ...]:
    """The writes of one stream: headers with the role chunk, the contents, finish, usage, the end."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    frames = [head + _framed(_delta({"role": "assistant", "content": ""}))]
    frames += [_framed(_BEFORE + piece + _AFTER) for piece in pieces(seed)]
    frames.append(_framed(_delta({}, finish="stop")))
    if usage:
        frames.append(_framed(_chunk([], _USAGE)))
    frames.append(_framed("[DONE]") + b"0\r\n\r\n")
    return tuple(frames)


_MODEL_CARD = {"id": MODEL, "object": "model", "created": 1_760_000_000, "owned_by": "mock"}
_ROUTES = {
    b"/v1/models": _plain({"object": "list", "data": [_MODEL_CARD]}),
    b"/v1/models/mock-model": _plain(_MODEL_CARD),
    b"/v1/embeddings": _plain(
        {
            "object": "list",
            "model": MODEL,
            "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5, 0.125, 1.0]}],
            "usage": {"prompt_tokens": 4, "total_tokens": 4},
        },
    ),
    # What routers of inference servers ask a worker before they send it traffic.
    b"/health": _plain({"status": "ok"}),
    b"/get_model_info": _plain({"model_path": MODEL, "is_generation": True}),
    b"/model_info": _plain({"model_path": MODEL, "is_generation": True}),
    b"/get_server_info": _plain({"model_path": MODEL, "served_model_name": MODEL}),
    b"/server_info": _plain({"model_path": MODEL, "served_model_name": MODEL}),
    b"/version": _plain({"version": "0.0.0"}),
}
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class MockConnection(asyncio.Protocol):
    """One connection from a gateway, kept alive; requests are answered in order, without pipelining."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """A stream under way stops with its connection."""
        del exc
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which calls the ``on_*`` methods below."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self._transport is not None:
                self._transport.abort()

    def on_url(self, url: bytes) -> None:
        """Take the path."""
        self._url, self._body = url, b""

    def on_body(self, body: bytes) -> None:
        """Gather the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """Answer."""
        if self._transport is None:
            return
        if not self._url.endswith(b"/chat/completions"):
            self._transport.write(_ROUTES.get(self._url, _NOT_FOUND))
            return
        found = _SEED.search(self._body)
        seed = int(found[1]) if found else UNSEEDED
        if _ASKS_STREAM.search(self._body) is None:
            self._transport.write(unary_reply(seed))
            return
        usage = _ASKS_USAGE.search(self._body) is not None
        self._write_next(iter(stream_frames(seed, usage=usage)))

    def _write_next(self, frames: Iterator[bytes]) -> None:
        frame = next(frames, None)
        if frame is None or self._transport is None:
            return
        self._transport.write(frame)
        if self._interval > 0:
            self._loop.call_later(self._interval, self._write_next, frames)
        else:
            self._loop.call_soon(self._write_next, frames)


async def serve(port: int, interval: float) -> None:
    """Serve on loopback until the process is stopped; ``interval`` is seconds between chunks."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: MockConnection(interval), "127.0.0.1", port, backlog=4096)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=9100)
    parser.add_argument(
        "--chunk-interval-ms", type=float, default=0.0, help="pause between chunks of a stream"
    )
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.port, arguments.chunk_interval_ms / 1000))


if __name__ == "__main__":
    main()

"""The compression alone, around an application that answers as told."""

import gzip
import json

import brotli
import pytest
import zstandard

from gateway.api.compression import Compression

BODY = json.dumps({"text": "tide " * 1000}).encode()
PARTS = [f"data: {number} {'tide ' * 40}\n\n".encode() for number in range(5)]
DECODE = {
    "gzip": gzip.decompress,
    "br": brotli.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


def answering(kind, *parts):
    async def app(scope, receive, send):
        headers = [(b"content-type", kind)]
        if len(parts) == 1:
            headers.append((b"content-length", b"%d" % len(parts[0])))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number, part in enumerate(parts, start=1):
            await send({"type": "http.response.body", "body": part, "more_body": number < len(parts)})

    return app


async def request(app, **headers):
    sent = []

    async def send(message):
        sent.append(message)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": named}
    await Compression(app)(scope, None, send)
    start, *bodies = sent
    return dict(start["headers"]), [message.get("body", b"") for message in bodies]


@pytest.mark.parametrize("encoding", DECODE)
async def test_a_body_is_compressed_for_who_asks(encoding):
    headers, bodies = await request(answering(b"application/json", BODY), accept_encoding=encoding)
    assert headers[b"content-encoding"] == encoding.encode()
    data = b"".join(bodies)
    assert DECODE[encoding](data) == BODY
    assert int(headers[b"content-length"]) == len(data) < len(BODY) / 10
    assert headers[b"vary"].lower() == b"accept-encoding"


@pytest.mark.parametrize("asked", [{}, {"accept_encoding": "identity"}, {"accept_encoding": "gzip;q=0"}])
async def test_who_does_not_ask_gets_it_as_it_is(asked):
    headers, bodies = await request(answering(b"application/json", BODY), **asked)
    assert b"content-encoding" not in headers
    assert bodies == [BODY]


async def test_a_small_body_is_left_alone():
    headers, bodies = await request(answering(b"application/json", b"{}"), accept_encoding="gzip, br, zstd")
    assert b"content-encoding" not in headers
    assert bodies == [b"{}"]


async def test_a_stream_is_left_alone():
    app = answering(b"text/event-stream; charset=utf-8", *PARTS)
    headers, bodies = await request(app, accept_encoding="gzip, br, zstd")
    assert b"content-encoding" not in headers
    assert bodies == PARTS


@pytest.mark.parametrize("encoding", DECODE)
async def test_a_stream_is_compressed_part_by_part_for_who_says_so(encoding):
    app = answering(b"text/event-stream; charset=utf-8", *PARTS)
    headers, bodies = await request(app, accept_encoding=encoding, x_tidegate_compress="stream")
    assert headers[b"content-encoding"] == encoding.encode()
    decoder = {
        "gzip": lambda: __import__("zlib").decompressobj(31).decompress,
        "br": lambda: brotli.Decompressor().process,
        "zstd": lambda: zstandard.ZstdDecompressor().decompressobj().decompress,
    }[encoding]()
    assert [decoder(body) for body in bodies if body][: len(PARTS)] == PARTS

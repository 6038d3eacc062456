"""Compressed bodies, with a real server that says what it was sent."""

import gzip
import json
import zlib
from contextlib import asynccontextmanager

import brotli
import httpx
import pytest
import zstandard

from gateway.providers.dialect import Account
from gateway.providers.encoding import accepted
from gateway.providers.openai import OpenAIUpstream
from policies.errors import UpstreamUnavailable
from policies.service import Operation
from tests.kit.upstream import make_call

BODY = json.dumps(
    {"choices": [{"index": 0, "message": {"content": "tide " * 500}, "finish_reason": "stop"}]}
).encode()
COMPRESS = {
    "gzip": gzip.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "deflate": zlib.compress,
}
DECOMPRESS = {
    "gzip": gzip.decompress,
    "br": brotli.decompress,
    "zstd": zstandard.ZstdDecompressor().decompress,
}


class Parts(httpx.AsyncByteStream):
    """A body that comes in small parts, as from a network."""

    def __init__(self, data):
        self._data = data

    async def __aiter__(self):
        for at in range(0, len(self._data), 100):
            yield self._data[at : at + 100]


@asynccontextmanager
async def asked(data, *, headers, seen, call=None, **account):
    async def answer(request):
        seen.append(request)
        return httpx.Response(200, headers=headers, stream=Parts(data))

    service = OpenAIUpstream(
        Account("up", account.pop("base_url", "https://api.example.com/v1"), **account),
        "m",
        httpx.MockTransport(answer),
        connect_timeout=5,
        wall_time=lambda: 0.0,
    )
    async with service(call or make_call(stream=False)) as reply:
        yield b"".join([event.data async for event in reply.events])


@pytest.mark.parametrize("encoding", COMPRESS)
async def test_compressed_answers_are_understood(encoding):
    seen = []
    headers = {"content-encoding": encoding, "content-type": "application/json"}
    async with asked(COMPRESS[encoding](BODY), headers=headers, seen=seen) as body:
        assert body == BODY
    assert seen[0].headers["accept-encoding"] == "gzip, br, zstd"


async def test_a_compressed_answer_that_is_damaged_is_no_answer():
    headers = {"content-encoding": "gzip"}
    with pytest.raises(UpstreamUnavailable):
        async with asked(b"not gzip at all", headers=headers, seen=[]):
            pass


async def test_a_stream_that_comes_compressed_unasked_is_understood():
    chunk = b'data: {"choices": [{"index": 0, "delta": {"content": "tide"}, "finish_reason": "stop"}]}\n\n'
    headers = {"content-encoding": "gzip", "content-type": "text/event-stream"}
    seen = []
    async with asked(gzip.compress(chunk), headers=headers, seen=seen, call=make_call()) as body:
        assert b"tide" in body
    assert seen[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/v1", "http://localhost:9/v1", "http://[::1]:9/v1"])
def test_on_loopback_nothing_is_compressed(address):
    assert accepted(address) == "identity"


@pytest.mark.parametrize("encoding", DECOMPRESS)
async def test_requests_are_compressed_where_the_provider_takes_it(encoding):
    long = {"model": "m", "messages": [{"role": "user", "content": "tide " * 1000}]}
    seen = []
    call = make_call(stream=False, body=long, operation=Operation.CHAT)
    async with asked(BODY, headers={}, seen=seen, call=call, compress=encoding):
        pass
    (request,) = seen
    assert request.headers["content-encoding"] == encoding
    assert json.loads(DECOMPRESS[encoding](request.content)) == long
    assert len(request.content) < 1000


async def test_short_requests_are_not_compressed():
    seen = []
    async with asked(BODY, headers={}, seen=seen, compress="gzip"):
        pass
    assert "content-encoding" not in seen[0].headers

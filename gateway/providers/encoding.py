"""Compressed bodies to and from upstreams (RFC 9110, section 8.4).

Whole answers are asked for compressed where they come over a network; on loopback it would be work for
nothing, and a stream's small chunks are better sent as they are. What comes compressed unasked is
understood as well. Requests are compressed only where the provider is said to take that: most don't.
"""

import gzip
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Literal
from urllib.parse import urlsplit

import brotli  # type: ignore[import-untyped]
import httpx
import zstandard

Encoding = Literal["gzip", "br", "zstd"]

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_WORTHWHILE = 2048
"""A request of fewer bytes isn't compressed."""

_COMPRESS: Mapping[Encoding, Callable[[bytes], bytes]] = {
    "gzip": lambda body: gzip.compress(body, 3),
    "br": lambda body: bytes(brotli.compress(body, quality=3)),
    "zstd": lambda body: zstandard.ZstdCompressor().compress(body),
}


def accepted(base_url: str) -> str:
    """What to say in Accept-Encoding for whole bodies from there."""
    return "identity" if urlsplit(base_url).hostname in LOOPBACK else "gzip, br, zstd"


def compressed(body: bytes, encoding: Encoding | None) -> tuple[bytes, Encoding | None]:
    """The body to send, and how it is encoded."""
    if encoding is None or len(body) < _WORTHWHILE:
        return body, None
    return _COMPRESS[encoding](body), encoding


def decoded(response: httpx.Response) -> AsyncIterator[bytes]:
    """The parts of a response's body, decompressed where it says that it is compressed."""
    stream = response.stream
    if not isinstance(stream, httpx.AsyncByteStream):
        raise TypeError("the transport must be asynchronous")
    if response.headers.get("content-encoding", "identity") == "identity":
        return aiter(stream)
    return response.aiter_bytes()

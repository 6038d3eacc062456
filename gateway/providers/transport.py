"""The transport that carries all traffic: httpx's interface over aiohttp's connection pool.

httpx's own pool costs several times as much a request; its transport interface is kept, so that
tests and other transports fit in.
"""

import ssl

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

_KEEP_ALIVE = 60.0
_DNS_CACHE = 60
_READ_BUFFER = 256 * 1024


def open_transport() -> httpx.AsyncBaseTransport:
    """A transport with no limit of connections of its own: limits are the policies' business.

    To be called inside the event loop that will use it.
    """
    connector = aiohttp.TCPConnector(
        limit=0,
        keepalive_timeout=_KEEP_ALIVE,
        ttl_dns_cache=_DNS_CACHE,
        ssl=ssl.create_default_context(),
    )
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        read_bufsize=_READ_BUFFER,
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=True,
    )
    return AiohttpTransport(client=session)

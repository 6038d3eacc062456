"""The transport that carries all traffic: httpx's interface over aiohttp's connection pool.

httpx's own pool costs several times as much a request; its transport interface is kept, so that
tests and other transports fit in.
"""

import ssl
from functools import partial
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

_KEEP_ALIVE = 60.0
_DNS_CACHE = 60
_READ_BUFFER = 256 * 1024


class EnvironmentTransport(httpx.AsyncBaseTransport):
    """Goes through the proxies that HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY name.

    They are looked up once for each host; aiohttp's own look-up would read files at every request.
    To be used in one event loop. There is no limit of connections: limits are the policies' business.
    """

    def __init__(self) -> None:
        self._ssl = ssl.create_default_context()
        self._proxies = getproxies()
        self._by_proxy: dict[str | None, AiohttpTransport] = {}
        self._by_host: dict[tuple[str, str], AiohttpTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the response's stream is the caller's to close."""
        url = request.url
        transport = self._by_host.get((url.scheme, url.host))
        if transport is None:
            transport = self._by_host[url.scheme, url.host] = self._choose(url)
        return await transport.handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in self._by_proxy.values():
            await transport.aclose()

    def _choose(self, url: httpx.URL) -> AiohttpTransport:
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        if proxy is not None and proxy_bypass(url.host):
            proxy = None
        if proxy not in self._by_proxy:
            via = None if proxy is None else httpx.Proxy(proxy)
            self._by_proxy[proxy] = AiohttpTransport(
                verify=self._ssl,  # else it reads the machine's certificates again, while calls wait
                client=partial(_session, self._ssl),
                proxy=via,
            )
        return self._by_proxy[proxy]


def _session(context: ssl.SSLContext) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0, keepalive_timeout=_KEEP_ALIVE, ttl_dns_cache=_DNS_CACHE, ssl=context
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        read_bufsize=_READ_BUFFER,
        timeout=aiohttp.ClientTimeout(total=None),
    )

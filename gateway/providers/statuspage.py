"""Reading a provider's public status page: Statuspage's ``/api/v2/status.json``."""

from collections.abc import Awaitable, Callable

import httpx
import orjson

from gateway.providers import classify
from gateway.providers.replies import read_bounded
from policies.errors import UpstreamUnavailable

_PATH = "/api/v2/status.json"


def status_reader(page: str, transport: httpx.AsyncBaseTransport) -> Callable[[], Awaitable[str]]:
    """A function that returns the page's indicator: none, minor, major, critical or maintenance.

    It raises ``UpstreamUnavailable`` where the page can't be had or says something else.
    """
    url = httpx.URL(page.rstrip("/") + _PATH)

    async def read() -> str:
        unreadable = UpstreamUnavailable(f"{url.host}: the status page can't be read.")
        try:
            response = await transport.handle_async_request(httpx.Request("GET", url))
        except classify.TRANSPORT_ERRORS as error:
            raise unreadable from error
        try:
            indicator = orjson.loads(await read_bounded(response))["status"]["indicator"]
        except (*classify.TRANSPORT_ERRORS, orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise unreadable from error
        finally:
            await response.aclose()
        return str(indicator)

    return read

"""Follows /admin/events, and comes back by itself where the connection is lost."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

import httpx
from pydantic import ValidationError

from gateway.dashboard.views import GatewayView
from gateway.wire.sse import EventDecoder
from policies.ports import Clock

_PATIENCE = 5.0
"""Seconds of silence after which a gateway that should speak every second is lost."""

_RECONNECT_INTERVAL = 1.0
_REFUSED = (401, 403, 404)


@dataclass(frozen=True, slots=True)
class Lost:
    """There is no connection."""

    why: str


class Refused(Exception):
    """The gateway doesn't show itself, and won't when asked again: the key or the address is wrong."""


async def follow(url: str, admin_key: str, clock: Clock) -> AsyncGenerator[GatewayView | Lost]:
    """What the gateway tells, once a second, without end. Raises Refused."""
    async with httpx.AsyncClient(
        timeout=_PATIENCE, headers={"authorization": f"Bearer {admin_key}"}
    ) as client:
        while True:
            why = "it ended the stream"
            try:
                async with client.stream("GET", f"{url.rstrip('/')}/admin/events") as response:
                    if response.is_success:
                        decoder = EventDecoder()
                        async for piece in response.aiter_bytes():
                            for message in decoder.feed(piece):
                                yield GatewayView.model_validate_json(message)
                    else:
                        await response.aread()
                        why = _detail(response)
                        if response.status_code in _REFUSED:
                            raise Refused(why)
            except httpx.TimeoutException:
                why = f"no word for {_PATIENCE:g} s"
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                why = str(error) or type(error).__name__
            except ValidationError:
                raise Refused(f"{url} isn't a gateway of this version") from None
            yield Lost(why)
            await clock.sleep(_RECONNECT_INTERVAL)


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}"

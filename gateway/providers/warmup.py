"""Connections opened before the first call needs them: its DNS, TCP and TLS take several round trips.

A HEAD without credentials goes to every origin that is not on loopback. What it answers, if anything,
doesn't matter: its connection stays in the pool.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress

import httpx

from gateway.providers.classify import TRANSPORT_ERRORS
from gateway.providers.dialect import Account
from gateway.providers.encoding import LOOPBACK
from policies.ports import Clock

_PATIENCE = 10.0


async def warm_up(accounts: Iterable[Account], transport: httpx.AsyncBaseTransport, clock: Clock) -> None:
    """Reach the origin of every account once. Never raises."""
    urls = [httpx.URL(account.base_url) for account in accounts]
    origins = {url.copy_with(raw_path=b"/", fragment=None) for url in urls if url.host not in LOOPBACK}
    await asyncio.gather(*(_reach(origin, transport, clock) for origin in origins))


async def _reach(origin: httpx.URL, transport: httpx.AsyncBaseTransport, clock: Clock) -> None:
    with suppress(TimeoutError, *TRANSPORT_ERRORS):
        async with clock.timeout_at(clock.now() + _PATIENCE):
            request = httpx.Request("HEAD", origin, headers={"user-agent": "tidegate"})
            response = await transport.handle_async_request(request)
            await response.aclose()

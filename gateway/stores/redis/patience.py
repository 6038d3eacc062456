"""Waiting for a server, and not for ourselves.

A process with a hundred things to do comes back late to the answer that it waits for. Measured by the clock
alone its own lateness would look like the server's, and a busy gateway would take its Redis for dead just
when it needs it. So the wait goes in slices, and each gives the answer a turn.
"""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

from policies.ports import Clock

T = TypeVar("T")

_SLICES = 25


async def in_time(answer: Awaitable[T], seconds: float, clock: Clock) -> T:
    """What ``answer`` gives or raises; TimeoutError if the server takes longer than ``seconds``."""
    task = asyncio.ensure_future(answer)
    try:
        for _ in range(_SLICES):
            with suppress(TimeoutError):
                async with clock.timeout_at(clock.now() + seconds / _SLICES):
                    return await asyncio.shield(task)
        raise TimeoutError
    finally:
        task.cancel()

"""The one place that reads the machine's clock and its randomness."""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager


class SystemClock:
    """The machine's monotonic time. An event loop's own is too coarse: uvloop's moves in milliseconds."""

    now = staticmethod(time.monotonic)  # noqa: TID251 - this is where the clock is

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)  # noqa: TID251 - this is where the clock is

    def timeout_at(self, when: float | None) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(None if when is None else when - self.now())

    def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(when - self.now(), callback)


def wall_time() -> float:
    """Seconds since the epoch, for what people and databases read. Never for measuring or waiting."""
    return time.time()  # noqa: TID251 - this is where the clock is


def system_random() -> random.Random:
    """A generator seeded by the operating system, to be handed to the policies."""
    return random.Random()  # noqa: S311 - spreads load, keeps no secret

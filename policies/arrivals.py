"""Arrivals: the events of a reply with the waits between them in sight.

An event of a stream passes every layer, and in Python each layer that wraps the iterator costs more than
what it does. So those that need more than events share one object: the innermost service fills it, the
timers hear of its waits, and whoever passes events on takes what arrived without a call for each.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from policies.service import Event


class ReadWatch(Protocol):
    """Bounds the waits of ``Arrivals.read``, which tells it of each by its attributes.

    ``since`` is ``now()`` as a wait begins and None when it is over; a part of the answer gives the next
    waits the whole ``limit`` again as what is ``left`` to them. As calls these would cost a stream more
    than all else that a watch does.
    """

    now: Callable[[], float]
    since: float | None
    left: float
    limit: float

    def cancelled(self) -> None:
        """The wait was cancelled: raises what to raise instead, if this watch did it."""
        ...

    def nothing_came(self) -> None:
        """The wait is over: whatever came, or the end, is no part of the answer."""
        ...


class Arrivals(ABC):
    """Events as they come: those that ``arrived`` and weren't taken yet, and the wait for more.

    An iterator like any other. ``read`` tells ``watch`` of its wait.
    """

    def __init__(self) -> None:
        self.arrived: deque[Event] = deque()
        self.watch: ReadWatch | None = None

    @abstractmethod
    async def read(self) -> bool:
        """Wait until something comes; False at the end. For when everything that arrived was taken."""

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self.arrived:
            if not await self.read():
                raise StopAsyncIteration
        return self.arrived.popleft()

    async def aclose(self) -> None:  # noqa: B027 - most have nothing to close
        """Close what the events come from, where that isn't closed with the reply."""


class _OneByOne(Arrivals):
    """The events of any iterator as arrivals."""

    def __init__(self, events: AsyncIterator[Event]) -> None:
        super().__init__()
        self._events = events

    async def read(self) -> bool:
        watch = self.watch
        if watch is not None:
            watch.since = watch.now()
        try:
            event = await anext(self._events, None)
        except asyncio.CancelledError:
            if watch is not None:
                watch.cancelled()
            raise
        if watch is not None:
            if event is not None and event.content:
                watch.since, watch.left = None, watch.limit
            else:
                watch.nothing_came()
        if event is not None:
            self.arrived.append(event)
        return event is not None

    async def aclose(self) -> None:
        close = getattr(self._events, "aclose", None)
        if close is not None:
            await close()


def arrivals(events: AsyncIterator[Event]) -> Arrivals:
    """The events as arrivals, which they may be already."""
    return events if isinstance(events, Arrivals) else _OneByOne(events)

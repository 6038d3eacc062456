"""A reply opened, read and closed in a task of its own, and consumed in another.

Timeouts and task groups belong to the task that entered them (PEP 789), so a reply that loses a race
can't be closed from outside: its own task has to leave it. Events are handed over one at a time when
they are asked for, so that nothing runs ahead of its consumer.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

from policies.service import Event, Reply

_LEAVE = False
_MORE = True


class Branch:
    """Runs one reply's context manager in a task; leaving the branch closes the reply and ends the task.

    ``on_open`` is called in the branch's task once the reply is open. An error in the consumer's body is
    raised inside the reply's context too; a cancellation cancels the task.
    """

    def __init__(self, opening: AbstractAsyncContextManager[Reply], on_open: Callable[[], None]) -> None:
        self._opening = opening
        self._on_open = on_open
        self.opened: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._demand: asyncio.Queue[bool] = asyncio.Queue()
        self._supply: asyncio.Queue[Event | Exception | None] = asyncio.Queue()
        self._error: Exception | None = None
        self._failure: Exception | None = None
        self._task = asyncio.create_task(self._run())

    def cancel(self) -> None:
        """Close the reply at once; leaving the branch waits until that is done."""
        self._task.cancel()

    def failure(self) -> BaseException | None:
        """Why the reply could not be opened, as far as that is known."""
        return self.opened.exception() if self.opened.done() and not self.opened.cancelled() else None

    async def _run(self) -> None:
        try:
            async with self._opening as reply:
                source, reply.events = reply.events, _Events(self._demand, self._supply)
                self.opened.set_result(reply)
                self._on_open()
                await self._hand_over(source)
        except Exception as error:  # noqa: BLE001 - raised again in the consumer's task
            self._fail(error)
        except asyncio.CancelledError:
            self.opened.cancel()
            raise

    async def _hand_over(self, source: AsyncIterator[Event]) -> None:
        while await self._demand.get() is _MORE:
            try:
                item: Event | Exception | None = await anext(source, None)
            except Exception as error:  # noqa: BLE001 - raised again in the consumer's task
                item = error
            self._supply.put_nowait(item)
        if self._error is not None:
            raise self._error

    def _fail(self, error: Exception) -> None:
        if not self.opened.done():
            self.opened.set_exception(error)
            self.opened.exception()
        elif error is not self._error:
            self._failure = error
            self._supply.put_nowait(error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._task.done():
            if self._task.cancelling() or not self.opened.done():
                self._task.cancel()
            elif error is None or isinstance(error, Exception):
                self._error = error
                self._demand.put_nowait(_LEAVE)
            else:
                self._task.cancel()
            try:
                await asyncio.wait({self._task})
            except asyncio.CancelledError:
                self._task.cancel()
                raise
        if self._failure is not None and self._failure is not error:
            raise self._failure from error


class _Events:
    """The consumer's end: asks for an event and waits for it."""

    __slots__ = ("_demand", "_ended", "_supply")

    def __init__(self, demand: asyncio.Queue[bool], supply: asyncio.Queue[Event | Exception | None]) -> None:
        self._demand = demand
        self._supply = supply
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if self._ended:
            raise StopAsyncIteration
        self._demand.put_nowait(_MORE)
        item = await self._supply.get()
        if isinstance(item, Event):
            return item
        self._ended = True
        if item is None:
            raise StopAsyncIteration
        raise item

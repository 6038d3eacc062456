"""One upstream call that several read: it runs in a task of its own and writes into a buffer."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from policies.errors import ShuttingDown
from policies.service import CacheState, CacheStatus, Call, Event, Reply

_PAYS = CacheStatus(CacheState.MISS)
_SHARES = CacheStatus(CacheState.HIT, tier="flight")


class Flight:
    """Reads the reply that ``opening`` gives ``call`` to its end, for as long as anybody wants it.

    ``land`` is called once nobody may join any more.
    """

    def __init__(
        self, call: Call, opening: AbstractAsyncContextManager[Reply], land: Callable[["Flight"], None]
    ) -> None:
        self.call = call
        self._opening = opening
        self._land = land
        self._change = asyncio.Event()
        self.readers: dict[Reader, None] = {}
        self.source: Reply | None = None
        self.events: list[Event] = []
        self.finished = False
        self.error: Exception | None = None
        self._task = asyncio.create_task(self._run())

    async def changed(self) -> None:
        """Wait for something new."""
        await self._change.wait()

    async def end(self) -> None:
        """Nobody reads any more: wait until everything below is let go, which is made to happen now."""
        if not self.finished:
            self._land(self)
            self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            async with self._opening as reply:
                self.source = reply
                self._tell()
                async for event in reply.events:
                    self.events.append(event)
                    self._tell()
        except Exception as error:  # noqa: BLE001 - raised again in every reader's task
            self.error = error
        except asyncio.CancelledError:
            self.error = ShuttingDown("The call that this one shared was ended. Send the request again.")
            raise
        finally:
            self.finished = True
            self._land(self)
            self._tell()

    def _tell(self) -> None:
        change, self._change = self._change, asyncio.Event()
        change.set()


class Reader:
    """One call's copy of a flight. The first reader of a flight pays for it, or who stays when it leaves.

    Who pays has the flight's attempts in its history.
    """

    __slots__ = ("_call", "_flight", "_next", "_pays", "reply")

    def __init__(self, flight: Flight, call: Call) -> None:
        self._flight = flight
        self._call = call
        self._next = 0
        self._pays = not flight.readers
        self.reply = Reply("", "")
        flight.readers[self] = None

    async def board(self) -> None:
        """Wait for the first content. Raises what the flight failed with."""
        flight = self._flight
        while flight.source is None and not flight.finished:
            await flight.changed()
        if flight.source is None:
            raise flight.error or RuntimeError("a flight ended without a reply")
        self.reply = replace(flight.source, events=self._read(), at_hand=self._at_hand, complete=False)
        self._settle()

    async def leave(self) -> None:
        """Read no more. The last one to leave ends the flight."""
        flight = self._flight
        del flight.readers[self]
        if not flight.readers:
            await flight.end()
        elif self._pays and not flight.finished:
            self._pays = False
            self._settle()
            next(iter(flight.readers))._inherit(self._call)  # noqa: SLF001 - of its own kind
        elif self._pays:
            self._settle()

    def _inherit(self, call: Call) -> None:
        """Pay from now on, in the place of the call that left."""
        self._pays = True
        self._call.attempts = call.attempts
        self._settle()

    def _settle(self) -> None:
        """Tell in the reply whether its tokens are this call's."""
        source = self._flight.source
        usage = None if source is None else source.usage
        self.reply.usage = usage if self._pays else None
        if source is None or source.cached is None:
            self.reply.cached = _PAYS if self._pays else replace(_SHARES, saved=usage)

    def _at_hand(self) -> bool:
        return self._next < len(self._flight.events)

    async def _read(self) -> AsyncGenerator[Event, None]:
        flight = self._flight
        while not flight.finished or self._at_hand():
            if self._at_hand():
                self._next += 1
                if self._pays:
                    self._settle()
                yield flight.events[self._next - 1]
            else:
                await flight.changed()
        if flight.error is not None:
            raise flight.error
        assert flight.source is not None  # noqa: S101 - boarded
        self.reply.complete = flight.source.complete
        self._settle()

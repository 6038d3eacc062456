"""Single flight: calls for the same answer that come while it is on the way share one upstream call.

After Go's ``golang.org/x/sync/singleflight``, with two differences. The call upstream belongs to nobody:
it runs in a task of its own, and a client that leaves takes only its copy along; the last one to leave
ends it. And a stream is shared from its beginning, live, out of one buffer.
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

from policies.cache.answer import wants_usage
from policies.cache.flight import Flight, Reader
from policies.errors import GatewayError
from policies.facts import CallCoalesced
from policies.opening import opening
from policies.ports import Clock, Meter
from policies.service import Call, Reply, Service

_Name = tuple[str, bool, bool]


class Coalesce:
    """Layer below the cache: joins calls of one ``fingerprint`` that want the answer in the same form.

    Those that joined a call which failed before its first content try once more, together; so neither a
    leader's own fault nor a passing one of the upstream reaches them. How long one waited for another's
    first content is added to ``call.coalesced``.
    """

    def __init__(self, inner: Service, *, clock: Clock, meter: Meter) -> None:
        self._inner = inner
        self._clock = clock
        self._meter = meter
        self._flights: dict[_Name, Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    @opening
    async def __call__(self, call: Call) -> AsyncGenerator[Reply]:
        if call.fingerprint is None or call.directives.no_cache:
            async with self._inner(call) as reply:
                yield reply
            return
        name = (call.fingerprint, call.stream, wants_usage(call))
        leading = self._flights.get(name)
        if leading is not None:
            self._meter.emit(CallCoalesced(call, "process", leading.call))
        async with AsyncExitStack() as left:
            try:
                reader = await self._board(name, call, left)
            except GatewayError:
                if leading is None:
                    raise
                reader = await self._board(name, call, left)
            yield reader.reply

    async def _board(self, name: _Name, call: Call, left: AsyncExitStack) -> Reader:
        """Join a flight or begin one, to be ``left`` in the end, and wait for its first content."""
        flight = self._flights.get(name)
        if flight is None:
            flight = Flight(call, self._inner(call), lambda ended: self._land(name, ended))
            self._flights[name] = flight
        reader = Reader(flight, call)
        left.push_async_callback(reader.leave)
        joined = self._clock.now()
        try:
            await reader.board()
        finally:
            if flight.call is not call:
                call.coalesced += self._clock.now() - joined
        return reader

    def _land(self, name: _Name, flight: Flight) -> None:
        if self._flights.get(name) is flight:
            del self._flights[name]

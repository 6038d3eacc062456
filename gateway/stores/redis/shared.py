"""A server's counts as one process sees them, with all that it takes to live through its outages."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gateway.stores.redis.buckets import RedisStore
from gateway.stores.redis.connect import Client, close, connect
from gateway.stores.redis.fallback import FallbackStore
from gateway.stores.redis.replicas import Replicas
from policies.ports import Clock, Meter
from policies.ratelimit import Level

_PATIENCE = 5.0
"""What isn't a call may wait longer. How long a call waits is its store's to say, not its connections': they
can't tell our own lateness from the server's.
"""


@dataclass(frozen=True, slots=True)
class SharedOptions:
    """``url`` is the server's, ``owner`` a name that no other process has.

    ``timeout`` is the most that a call waits for it, in seconds. ``at_least`` is how many processes are
    known to share it; ``before`` is what buckets held that the server may not know.
    """

    url: str
    owner: str
    timeout: float
    at_least: int = 1
    before: Mapping[str, Level] = field(default_factory=dict)


class SharedCounts:
    """``store`` is a BucketStore that never fails; ``client`` is for whoever else needs the server.

    Run ``keep`` as a task.
    """

    def __init__(
        self, options: SharedOptions, *, clock: Clock, wall_time: Callable[[], float], meter: Meter
    ) -> None:
        self.client: Client = connect(options.url, timeout=_PATIENCE)
        self._replicas = Replicas(self.client, options.owner, at_least=options.at_least, clock=clock)
        self._exact = RedisStore(
            connect(options.url, timeout=_PATIENCE),
            clock=clock,
            wall_time=wall_time,
            meter=meter,
            timeout=options.timeout,
        )
        self._exact.seeds.restore(options.before)
        self.store = FallbackStore(
            self._exact, replicas=self._replicas, clock=clock, wall_time=wall_time, meter=meter
        )

    @property
    def outage(self) -> str | None:
        """Why the server is away, or None."""
        return self.store.outage

    def level(self, key: str) -> Level | None:
        """What a bucket held when it was last seen."""
        return self._exact.seeds.get(key)

    async def keep(self) -> None:
        """Be counted among those who share the server, until cancelled."""
        await self._replicas.keep()

    async def aclose(self) -> None:
        """Write what is left, and close the connections."""
        await asyncio.gather(self.store.aclose(), self._replicas.leave())
        await close(self.client)

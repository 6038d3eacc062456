"""Where a worker counts what its callers use, and what keeps the counts current.

A single worker counts in its memory, several share a Valkey of their own, and several gateways a server
that is named. The first two end with the gateway, so quotas that must outlive it go to the database.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from gateway.parts import Parts
from gateway.stores.database import AWAY
from gateway.stores.quotas import KeptQuotas, QuotaStore
from gateway.stores.redis import Client, LeasedStore, SharedCounts, SharedOptions
from policies.facts import Fact, StoreChanged
from policies.limits import HeldSlots
from policies.memory import MemoryStore
from policies.ports import BucketStore
from policies.ratelimit import Level

_LOG = logging.getLogger(__name__)

_TIMEOUT = 0.25
_TIMEOUT_OF_OURS = 2.0
"""Seconds. Our own server is started again when it ends, and slow only where this machine has no time for
any of us: to count without it would let in more calls just then."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to count: at a server's ``url``, or None for this process.

    ``ours`` says that it ends with the gateway, whose processes are as many as its ``workers``.
    """

    url: str | None = None
    ours: bool = True
    workers: int = 1


class Counts:
    """``store`` has the buckets, ``slots`` are those of the calls under way. Run ``keep`` as a task.

    ``before`` is what quotas held when the gateway ended; ``owner`` is a name that no other process has.
    """

    def __init__(self, place: Place, parts: Parts, quotas: QuotaStore, before: Mapping[str, Level]) -> None:
        self._parts = parts
        self._renewals: set[asyncio.Task[None]] = set()
        self._shared: SharedCounts | None = None
        self._leases: LeasedStore | None = None
        self._kept: KeptQuotas | None = None
        clock = parts.clock
        self.owner = owner = f"{parts.rng.getrandbits(64):016x}"
        if place.url is None:
            memory = MemoryStore(parts.wall_time, before)
            self._kept = KeptQuotas(memory, quotas, level=memory.level, clock=clock)
            self.store: BucketStore = self._kept
        else:
            timeout = _TIMEOUT_OF_OURS if place.ours else _TIMEOUT
            options = SharedOptions(place.url, owner, timeout, at_least=place.workers, before=before)
            self._shared = shared = SharedCounts(options, clock=clock, wall_time=parts.wall_time, meter=self)
            if place.ours:
                self._kept = KeptQuotas(shared.store, quotas, level=shared.level, clock=clock)
            self.store = self._leases = LeasedStore(self._kept or shared.store, clock=clock)
        self.slots = HeldSlots(self.store, owner=owner, clock=clock)

    @classmethod
    async def open(cls, place: Place, parts: Parts, quotas: QuotaStore) -> "Counts":
        """Begin with what the quotas held, where they are ours to keep."""
        return cls(place, parts, quotas, await quotas.load() if place.ours else {})

    @property
    def client(self) -> Client | None:
        """The shared server's client, for whoever else needs one."""
        return self._shared.client if self._shared is not None else None

    @property
    def outage(self) -> str | None:
        """Why the shared server is away, or None."""
        return self._shared.outage if self._shared is not None else None

    def emit(self, fact: Fact) -> None:
        """Hear what becomes of the shared server: where slots were taken elsewhere, take them anew."""
        self._parts.meter.emit(fact)
        if isinstance(fact, StoreChanged):
            if fact.degraded:
                _LOG.warning("the shared store is away, limits are counted here: %s", fact.why)
            else:
                _LOG.warning("the shared store is back, limits are exact again")
            task = asyncio.get_running_loop().create_task(self.slots.renew())
            self._renewals.add(task)
            task.add_done_callback(self._renewals.discard)

    async def keep(self) -> None:
        """Keep slots, leases and quotas current, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.slots.keep())
            if self._leases is not None:
                group.create_task(self._leases.keep())
            if self._shared is not None:
                group.create_task(self._shared.keep())
            if self._kept is not None:
                group.create_task(self._kept.keep())

    async def aclose(self) -> None:
        """Give back leases, write what is left, close the connections. No call is under way any more."""
        if self._leases is not None:
            await self._leases.give_back()
        if self._shared is not None:
            await self._shared.aclose()
        if self._kept is not None:
            with suppress(*AWAY):
                await self._kept.save()

"""The tiers as one store: the process first, then what the replicas share, with writes behind the reply."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from gateway.cache.codec import Kept
from gateway.cache.memory import ByteCache, size_of
from gateway.cache.purges import Purge, Purges
from policies.cache.answer import CachedAnswer
from policies.cache.exact import Spawn
from policies.facts import CacheDropped, CacheEvicted
from policies.ports import Meter

MEMORY = "memory"
_MOST_PENDING = 1024
_LAST_WRITES = 5.0


class TierSize(NamedTuple):
    """How full a tier is."""

    entries: int
    bytes: int


class SharedTier(Protocol):
    """A tier outside the process. None of its methods raises: what fails is counted and not there."""

    name: str

    async def get(self, key: str) -> Kept | None: ...

    async def put(self, kept: Kept) -> None: ...

    async def discard(self, purge: Purge) -> None:
        """Free the room of what a purge covers."""
        ...

    async def size(self) -> TierSize | None:
        """How full it is; None where it can't tell."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class TierOptions:
    """``max_entry`` is the largest body that is kept, in bytes."""

    max_entry: int = 2**20

    def __post_init__(self) -> None:
        if self.max_entry < 1:
            raise ValueError("cache.max_entry must be above 0 bytes")


class TieredStore:
    """A CacheStore. What a lower tier holds is kept in the process too once it was asked for."""

    def __init__(  # noqa: PLR0913 - its ports
        self,
        memory: ByteCache,
        shared: SharedTier | None,
        options: TierOptions,
        *,
        purges: Purges,
        wall_time: Callable[[], float],
        spawn: Spawn,
        meter: Meter,
    ) -> None:
        self._memory = memory
        self._shared = shared
        self._options = options
        self._purges = purges
        self._wall_time = wall_time
        self._spawn = spawn
        self._meter = meter
        self._pending: dict[str, tuple[Kept, asyncio.Future[None]]] = {}
        self._writing = False

    async def get(self, key: str) -> tuple[CachedAnswer, str] | None:
        found = self.at_hand(key)
        if found is not None or self._shared is None:
            return found
        kept = await self._shared.get(key)
        if kept is None or self._unfit(kept) is not None:
            return None
        self._memory.set(key, kept, size_of(kept))
        return kept.answer, self._shared.name

    def at_hand(self, key: str) -> tuple[CachedAnswer, str] | None:
        kept = self._memory.get(key)
        if kept is None:
            return None
        unfit = self._unfit(kept)
        if unfit is None:
            return kept.answer, MEMORY
        if self._memory.pop(key):
            self._meter.emit(CacheEvicted(MEMORY, 1, unfit))
        return None

    def put(self, answer: CachedAnswer, keep: float) -> None:
        if len(answer.body) > self._options.max_entry:
            self._meter.emit(CacheDropped(MEMORY, "oversized"))
            return
        kept = Kept(answer, answer.created + keep)
        self._memory.set(answer.key, kept, size_of(kept))
        if self._shared is not None:
            self._write_behind(self._shared, kept)

    async def settled(self, key: str) -> None:
        pending = self._pending.get(key)
        if pending is not None:
            await asyncio.shield(pending[1])

    async def flush(self) -> None:
        """Write what waits to be written, for as long as a stopping process may."""
        waiting = [done for _, done in self._pending.values()]
        if not waiting or self._shared is None:
            return
        # What wrote beside the requests may have been cancelled with all that did.
        writer = None if self._writing else asyncio.create_task(self._write(self._shared))
        await asyncio.wait(waiting, timeout=_LAST_WRITES)
        if writer is not None:
            writer.cancel()

    def forget(self, purge: Purge) -> None:
        """Free at once what a purge of everything covers; of others, what is asked for is found out."""
        if purge.everything and len(self._memory):
            self._meter.emit(CacheEvicted(MEMORY, len(self._memory), "purged"))
            self._memory.clear()

    def size(self) -> TierSize:
        """How full the process's tier is."""
        return TierSize(len(self._memory), self._memory.bytes)

    def _unfit(self, kept: Kept) -> str | None:
        """Why an answer may not be given any more."""
        if self._purges.covers(kept.answer):
            return "purged"
        return "expired" if kept.until <= self._wall_time() else None

    def _write_behind(self, shared: SharedTier, kept: Kept) -> None:
        key = kept.answer.key
        before = self._pending.get(key)
        if before is None and len(self._pending) >= _MOST_PENDING:
            self._meter.emit(CacheDropped(shared.name, "busy"))
            return
        done = asyncio.get_running_loop().create_future() if before is None else before[1]
        self._pending[key] = kept, done
        if not self._writing:
            self._writing = True
            self._spawn(self._write(shared))

    async def _write(self, shared: SharedTier) -> None:
        try:
            while self._pending:
                key, (kept, done) = next(iter(self._pending.items()))
                await shared.put(kept)
                if self._pending[key][0] is kept:
                    del self._pending[key]
                    done.set_result(None)
        finally:
            self._writing = False

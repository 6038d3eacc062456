"""A cache and leases in the process's memory: the specification of the real ones, and what tests use."""

from collections.abc import Callable

from policies.cache.answer import CachedAnswer

TIER = "memory"


class MemoryCache:
    """A CacheStore without bounds. ``now`` gives seconds since the epoch."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._kept: dict[str, tuple[CachedAnswer, float]] = {}

    async def get(self, key: str) -> tuple[CachedAnswer, str] | None:
        return self.at_hand(key)

    def at_hand(self, key: str) -> tuple[CachedAnswer, str] | None:
        found = self._kept.get(key)
        if found is None or found[1] <= self._now():
            return None
        return found[0], TIER

    def put(self, answer: CachedAnswer, keep: float) -> None:
        self._kept[answer.key] = answer, answer.created + keep

    async def settled(self, key: str) -> None:
        """What is put is there."""


class MemoryLeases:
    """Leases of several holders, ``owner`` being one of them; ``taken`` is what they share."""

    def __init__(self, taken: dict[str, tuple[str, float]], owner: str, now: Callable[[], float]) -> None:
        self._taken = taken
        self._owner = owner
        self._now = now

    async def acquire(self, key: str, ttl: float = 10.0) -> bool:
        owner, until = self._taken.get(key, ("", 0.0))
        if owner not in {"", self._owner} and until > self._now():
            return False
        self._taken[key] = self._owner, self._now() + ttl
        return True

    async def release(self, key: str) -> None:
        if self._taken.get(key, ("", 0.0))[0] == self._owner:
            del self._taken[key]

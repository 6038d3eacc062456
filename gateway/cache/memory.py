"""The tier in the process: bounded by bytes, with a choice of who has to go."""

from collections.abc import Callable
from typing import Literal, Protocol

from cachetools import Cache, LFUCache, LRUCache

from gateway.cache.codec import Kept
from gateway.cache.tinylfu import TinyLfu

Policy = Literal["w-tinylfu", "lru", "lfu"]

_OVERHEAD = 600
"""What an entry takes beside its body, in bytes: its facts and its places in the books."""


class ByteCache(Protocol):
    """What a policy has to offer. Sizes are in bytes."""

    @property
    def bytes(self) -> int: ...

    def __len__(self) -> int: ...

    def get(self, key: str, /) -> Kept | None: ...

    def set(self, key: str, value: Kept, size: int, /) -> None: ...

    def pop(self, key: str, /) -> bool: ...

    def clear(self) -> None: ...


class Ranked:
    """cachetools' policies: the least recently, or the least frequently, used has to go."""

    def __init__(
        self, kind: type[Cache[str, tuple[Kept, int]]], capacity: int, on_evict: Callable[[int], None]
    ) -> None:
        self._on_evict = on_evict
        self._cache = kind(capacity, getsizeof=lambda entry: entry[1])

    def __len__(self) -> int:
        return len(self._cache)

    @property
    def bytes(self) -> int:
        return int(self._cache.currsize)

    def get(self, key: str) -> Kept | None:
        entry = self._cache.get(key)
        return None if entry is None else entry[0]

    def set(self, key: str, value: Kept, size: int) -> None:
        if size > self._cache.maxsize:
            self._on_evict(1)
            return
        before = len(self._cache) + (key not in self._cache)
        self._cache[key] = value, size
        if len(self._cache) < before:
            self._on_evict(before - len(self._cache))

    def pop(self, key: str) -> bool:
        return self._cache.pop(key, None) is not None

    def clear(self) -> None:
        self._cache.clear()


def byte_cache(policy: Policy, capacity: int, on_evict: Callable[[int], None]) -> ByteCache:
    """A cache of ``capacity`` bytes with this policy."""
    if policy == "w-tinylfu":
        return TinyLfu(capacity, on_evict)
    return Ranked(LRUCache if policy == "lru" else LFUCache, capacity, on_evict)


def size_of(kept: Kept) -> int:
    """What an answer takes in the process."""
    return len(kept.answer.body) + _OVERHEAD

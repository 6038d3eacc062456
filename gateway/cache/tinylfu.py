"""A cache that is bounded by bytes and keeps what is asked for often and lately: W-TinyLFU.

Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache Admission Policy" (ACM ToS, 2017), with the
adaptive window of "Adaptive Software Cache Management" (Middleware, 2018), as theine's Rust core
implements it. The core counts entries. So an entry takes as many of them as it has KiB, and leaves as soon
as one of them does: a large entry must be worth all that it takes the place of.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from theine_core import TlfuCore

V = TypeVar("V")

_SLOT = 1024
_WORD = 2**64
_GOLDEN = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio: the slots of one key are far from each other."""


class TinyLfu(Generic[V]):
    """``capacity`` is in bytes; keys are hexadecimal digests. ``on_evict`` hears of what had to go."""

    def __init__(self, capacity: int, on_evict: Callable[[int], None]) -> None:
        self._slots = max(1, capacity // _SLOT)
        self._on_evict = on_evict
        self.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forget everything."""
        self._core = TlfuCore(self._slots)
        self._entries: dict[str, tuple[V, list[int]]] = {}
        self._owners: dict[int, str] = {}

    @property
    def bytes(self) -> int:
        """What is taken of the capacity."""
        return len(self._owners) * _SLOT

    def get(self, key: str) -> V | None:
        """What is kept under a key; it counts as asked for."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._core.access(entry[1])
        return entry[0]

    def set(self, key: str, value: V, size: int) -> None:
        """Keep a value of ``size`` bytes, unless what is there is worth more."""
        self.pop(key)
        count = max(1, -(-size // _SLOT))
        if count > self._slots:
            self._on_evict(1)
            return
        first = int(key[:16], 16)
        slots = [(first + place * _GOLDEN) % _WORD for place in range(count)]
        self._entries[key] = value, slots
        self._owners |= dict.fromkeys(slots, key)
        losers = {self._owners.get(slot) for slot in self._core.set([(slot, 0) for slot in slots])}
        gone = sum(self.pop(loser) for loser in losers if loser is not None)
        if gone:
            self._on_evict(gone)

    def pop(self, key: str) -> bool:
        """Forget one; whether it was there."""
        _, slots = self._entries.pop(key, (None, ()))
        for slot in slots:
            self._owners.pop(slot, None)
            self._core.remove(slot)
        return bool(slots)

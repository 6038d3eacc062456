"""Sums by name in slots of time: enough for a small chart of the last minutes.

Slots begin at multiples of their length on the wall clock, so that those of several processes add up.
"""

from collections import deque
from math import inf

SECONDS = 5
"""How long a slot is."""

KEPT = 60
"""How many slots are kept: five minutes of them."""

Series = dict[str, dict[int, float]]
"""By name: the sum of each slot, by the slot's number."""


def slot_of(wall_time: float) -> int:
    """The number of the slot that this time falls into."""
    return int(wall_time // SECONDS)


class Slots:
    """The sums of one worker."""

    def __init__(self) -> None:
        self._slots: deque[tuple[int, dict[str, float]]] = deque(maxlen=KEPT)
        self._present: dict[str, float] = {}
        self._until = -inf

    def add(self, name: str, wall_time: float, amount: float = 1.0) -> None:
        """Add to the sum of ``name`` in the slot of this time."""
        if wall_time >= self._until:
            number = slot_of(wall_time)
            self._until = (number + 1) * SECONDS
            self._present = {}
            self._slots.append((number, self._present))
        sums = self._present
        sums[name] = sums.get(name, 0.0) + amount

    def series(self, wall_time: float) -> Series:
        """What was added during the slots that are kept."""
        oldest = slot_of(wall_time) - KEPT
        found: Series = {}
        for number, sums in self._slots:
            if number > oldest:
                for name, amount in sums.items():
                    found.setdefault(name, {})[number] = amount
        return found

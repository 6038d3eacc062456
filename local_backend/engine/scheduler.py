"""Decides what each step of the engine runs: first come, first served, decode never waits for a long prompt.

Every step decodes all sequences that have their prompt cached and, beside them, prefills at most
`prefill_budget` prompt tokens (chunked prefill, Sarathi-Serve, arXiv 2403.02310), so a long prompt delays the
others' next token by a bounded time.
"""

import heapq
from collections import deque
from dataclasses import dataclass

from local_backend.engine.request import Sequence


@dataclass(frozen=True)
class PrefillChunk:
    """The prompt tokens [start, end) of a sequence."""

    sequence: Sequence
    start: int
    end: int


@dataclass(frozen=True)
class Step:
    """What to run now; `decode` is in the order of the cache slots."""

    prefill: list[PrefillChunk]
    decode: list[Sequence]


class Scheduler:
    """Queues of waiting and running sequences and the free cache slots. Used by the engine's thread alone."""

    def __init__(self, max_concurrency: int, prefill_budget: int) -> None:
        self._prefill_budget = prefill_budget
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._free_slots = list(range(max_concurrency))

    @property
    def sequences(self) -> list[Sequence]:
        """All sequences, running first."""
        return [*self._running, *self._waiting]

    @property
    def is_idle(self) -> bool:
        return not self._running and not self._waiting

    def add(self, sequence: Sequence) -> None:
        """Put a sequence at the end of the queue."""
        self._waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence that ended, and free its slot."""
        if sequence.slot is None:
            self._waiting.remove(sequence)
            return
        self._running.remove(sequence)
        heapq.heappush(self._free_slots, sequence.slot)
        sequence.slot = None

    def next_step(self) -> Step:
        """Admit what fits and choose the next step's work."""
        while self._waiting and self._free_slots:
            sequence = self._waiting.popleft()
            sequence.slot = heapq.heappop(self._free_slots)
            self._running.append(sequence)
        decode = [sequence for sequence in self._running if sequence.is_prefilled]
        decode.sort(key=lambda sequence: sequence.slot or 0)
        return Step(self._prefill_chunks(), decode)

    def _prefill_chunks(self) -> list[PrefillChunk]:
        chunks = []
        budget = self._prefill_budget
        for sequence in self._running:
            if sequence.is_prefilled or not budget:
                continue
            end = min(sequence.num_cached + budget, len(sequence.prompt))
            chunks.append(PrefillChunk(sequence, sequence.num_cached, end))
            budget -= end - sequence.num_cached
        return chunks

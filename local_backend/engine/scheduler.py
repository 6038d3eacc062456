"""Decides what each step of the engine runs.

Every step decodes all running sequences and, beside them, prefills at most `prefill_budget` prompt tokens
(chunked prefill, Sarathi-Serve, arXiv 2403.02310), so a long prompt delays the others' next token by a
bounded time. A more urgent sequence goes first everywhere; where places or blocks run out, the least urgent
one is preempted and computed again later (as vLLM does, arXiv 2309.06180), mostly from its own cached prefix.

Chunks end at multiples of `chunk` positions. So how a prompt is cut depends on the prompt alone, and with it
every rounding of its result.
"""

from bisect import insort
from dataclasses import dataclass, field

from local_backend.engine.blocks import BlockPool
from local_backend.engine.request import Sequence
from local_backend.engine.tables import Tables
from local_backend.engine.window import Window


@dataclass(frozen=True)
class SchedulerOptions:
    """`chunk` is in prompt tokens of one pass, `prefill_budget` in prompt tokens of one step.

    `replay` bounds how many of its own tokens a preempted sequence catches up on in a step. `share_answers`:
    generated tokens may be found as a prefix too. Where decoding rounds otherwise than prefilling, an answer
    would then depend on what is cached. `window` bounds the blocks of a sequence, None keeps all.
    """

    max_concurrency: int = 8
    prefill_budget: int = 128
    chunk: int = 64
    replay: int = 16
    share_answers: bool = False
    window: Window | None = None

    def __post_init__(self) -> None:
        if min(self.max_concurrency, self.prefill_budget, self.chunk, self.replay) < 1:
            raise ValueError("max_concurrency, prefill_budget, chunk and replay must be at least 1")


@dataclass(frozen=True)
class Chunk:
    """The positions [start, end) of a sequence."""

    sequence: Sequence
    start: int
    end: int


@dataclass
class Step:
    """What to run now: prompts by the chunk, generated tokens (usually one a sequence) row by row."""

    prefill: list[Chunk] = field(default_factory=list)
    decode: list[Chunk] = field(default_factory=list)


class Scheduler:
    """Waiting and running sequences and their blocks. Used by the engine's thread alone."""

    def __init__(self, pool: BlockPool, options: SchedulerOptions) -> None:
        if options.chunk % pool.size:
            raise ValueError("chunk must be a multiple of the block size")
        if options.window and options.window.step * pool.size != options.chunk:
            raise ValueError("a window must slide by the positions of a chunk")
        self._tables = Tables(pool, options.window, options.share_answers)
        self._options = options
        self._waiting: list[Sequence] = []
        self._running: list[Sequence] = []
        self.preemptions = 0
        self.prefix_hits = 0

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        return not self._running and not self._waiting

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence behind those that are as urgent."""
        insort(self._waiting, sequence, key=_urgency)

    def remove(self, sequence: Sequence, *, spoilt: bool = False) -> None:
        """Forget a sequence that ended and free its blocks; `spoilt` ones are not kept as a prefix."""
        (self._running if sequence in self._running else self._waiting).remove(sequence)
        self._tables.release(sequence, spoilt=spoilt)

    def advance(self, sequence: Sequence, end: int) -> None:
        """The positions before `end` are cached now."""
        self._tables.advance(sequence, end)

    def next_step(self) -> Step:
        """Admit what fits and choose the next step's work."""
        self._admit()
        step = Step()
        for sequence in list(self._running):
            if sequence.is_prefilled and sequence in self._running:
                end = min(len(sequence), sequence.num_cached + self._options.replay)
                end = self._tables.stretch(sequence.num_cached, end)
                if self._reserve(sequence, end, step):
                    step.decode.append(Chunk(sequence, sequence.num_cached, end))
        budget = self._options.prefill_budget
        for sequence in list(self._running):
            if budget > 0 and not sequence.is_prefilled and sequence in self._running:
                budget = self._prefill(sequence, budget, step)
        return step

    def _admit(self) -> None:
        while self._waiting:
            sequence = self._waiting[0]
            has_place = len(self._running) < self._options.max_concurrency
            if self._running and not (has_place and self._tables.fits(sequence)):
                if sequence.priority >= self._running[-1].priority:
                    return
                self._preempt(self._running[-1])
                continue
            self._waiting.remove(sequence)
            insort(self._running, sequence, key=_urgency)

    def _prefill(self, sequence: Sequence, budget: int, step: Step) -> int:
        """Add chunks of a prompt to the step; returns what is left of the budget."""
        self.prefix_hits += self._tables.take_known(sequence)
        start = sequence.num_cached
        while start < len(sequence.prompt) and budget > 0:
            end = min(start - start % self._options.chunk + self._options.chunk, len(sequence.prompt))
            if start > sequence.num_cached and self._tables.slides(sequence, end):
                break  # what it would let go of is still to be read in this step
            if not self._reserve(sequence, end, step):
                break
            step.prefill.append(Chunk(sequence, start, end))
            budget -= end - start
            start = end
        return budget

    def _reserve(self, sequence: Sequence, end: int, step: Step) -> bool:
        """Hold blocks for the positions before `end`, at the cost of less urgent sequences."""
        while not self._tables.extend(sequence, end):
            victim = self._running[-1]
            step.decode = [chunk for chunk in step.decode if chunk.sequence is not victim]
            step.prefill = [chunk for chunk in step.prefill if chunk.sequence is not victim]
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence) -> None:
        self.preemptions += 1
        self.remove(sequence)
        sequence.num_cached = 0
        self.add(sequence)


def _urgency(sequence: Sequence) -> tuple[int, int]:
    return sequence.urgency

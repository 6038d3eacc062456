"""The engine's thread: takes commands, runs steps, posts what happened.

What fails hurts as few as possible. A pass that fails (memory, usually) is repeated for each of its sequences
alone, and only those that fail again are told so; logits that aren't numbers and a sampler that raises end
their own sequence. When nothing works any more, or the books are wrong, everybody is told and the engine
starts anew with an empty cache; if that fails before it has made a single token, it stays failed.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue

from torch import Tensor

from local_backend.clock import now
from local_backend.engine.blocks import BlockPool
from local_backend.engine.effort import EffortBook
from local_backend.engine.load import Load, Speed
from local_backend.engine.pooling import MeanPool
from local_backend.engine.request import Embedding, Event, Finished, FinishReason, Sequence
from local_backend.engine.runner import ModelRunner, Row
from local_backend.engine.sampler import Sampler
from local_backend.engine.scheduler import Chunk, Scheduler, SchedulerOptions, Step
from local_backend.engine.speculation import Speculation
from local_backend.measure.gauge import CORE_WATTS, Cores, Gauge

log = logging.getLogger(__name__)

# Sequences that fail one after the other, nothing working between, before the device is taken to be broken.
_BROKEN_AFTER = 3


@dataclass(frozen=True)
class Abort:
    """End a generation at the next step, if it has not ended yet."""

    request_id: int


Command = Sequence | Abort | None
"""A new sequence, an abort, or None to stop the thread."""


@dataclass(frozen=True)
class EngineOptions:
    """max_length is in tokens, prompt and answer together; `model` separates its prefixes from others'.

    `guesses` is how many tokens of a sequence one pass may check ahead, 0 for no speculation. `gauge` tells
    the energy that passes take.
    """

    max_queue: int
    max_length: int
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    blocks: int
    block_size: int = 64
    model: str = ""
    guesses: int = 8
    scheduling: SchedulerOptions = field(default_factory=SchedulerOptions)
    gauge: Gauge = field(default_factory=lambda: Cores(CORE_WATTS))

    def __post_init__(self) -> None:
        if self.max_queue < 0:
            raise ValueError("max_queue must be at least 0")
        window = self.scheduling.window
        kept = self.max_length if window is None else window.blocks * self.block_size
        if self.blocks * self.block_size < kept:
            raise ValueError(f"{self.blocks} blocks of {self.block_size} tokens don't hold {kept}")


class Broken(Exception):
    """The device, or what depends on it, doesn't work any more."""


class Worker:
    """Owns the scheduler, the runner and the samplers; `run` is the thread's whole life."""

    def __init__(
        self,
        runner: ModelRunner,
        options: EngineOptions,
        commands: SimpleQueue[Command],
        post: Callable[[list[tuple[int, Event]]], None],
        post_failure: Callable[[], None],
    ) -> None:
        self._runner = runner
        self._options = options
        self._commands = commands
        self._post = post
        self._post_failure = post_failure
        self._events: list[tuple[int, Event]] = []
        self._speed = Speed()
        self._effort = EffortBook(options.gauge)
        self.load = Load(options.blocks, options.blocks)
        self._start_anew()

    def run(self) -> None:
        """Serve until told to stop, starting anew after a failure as long as that helps."""
        while True:
            try:
                while self._take_commands():
                    self._run_step(self._scheduler.next_step())
            # Whatever broke, device errors included, has one answer.
            except Exception:
                log.exception("the engine failed")
                self._end_all(FinishReason.ERROR)
                if not self._has_worked:
                    self._post_failure()
                    self._refuse_until_stopped()
                    return
                self.load.restarts += 1
                self._start_anew()
            else:
                self._end_all(FinishReason.ABORT)
                return

    def _start_anew(self) -> None:
        self._pool = BlockPool(self._options.blocks, self._options.block_size)
        self._scheduler = Scheduler(self._pool, self._options.scheduling)
        self._sequences: dict[int, Sequence] = {}
        self._samplers: dict[int, Sampler] = {}
        self._pools: dict[int, MeanPool] = {}
        self._speculation = Speculation(self._options.guesses, self._runner.rows, self._options.block_size)
        self._failed_in_a_row = 0
        self._has_worked = False

    def _take_commands(self) -> bool:
        """Apply what was asked since the last step, waiting while there is nothing to run. False: stop."""
        while True:
            if self._scheduler.is_idle:
                self._pool.check()
            elif self._commands.empty():
                return True
            self._report()
            command = self._commands.get()
            if command is None:
                return False
            if isinstance(command, Sequence):
                self._add(command)
            elif (sequence := self._sequences.get(command.request_id)) is not None:
                self._end(sequence, FinishReason.ABORT)
            self._flush()

    def _add(self, sequence: Sequence) -> None:
        try:
            if sequence.params is None:
                self._pools[sequence.request_id] = MeanPool()
            else:
                sampler = Sampler(sequence.params, sequence.prompt, self._options.vocab_size)
                sampler.remember(sequence.generated)
                self._samplers[sequence.request_id] = sampler
        except Exception as error:  # noqa: BLE001 - one request's own, whatever it is
            _log_failure(sequence, error)
            self._events.append((sequence.request_id, Finished(FinishReason.ERROR)))
            return
        if self._scheduler.is_idle:
            self._effort.begin()
        self._sequences[sequence.request_id] = sequence
        self._scheduler.add(sequence)

    def _run_step(self, step: Step) -> None:
        started, decoded = now(), self.load.decoded
        rows = [
            Row(chunk.sequence, position, chunk.sequence.token(position))
            for chunk in step.decode
            for position in range(chunk.start, chunk.end)
        ]
        guesses = self._speculation.guess(rows)
        rows += guesses
        for first in range(0, len(rows), self._runner.rows):
            self._decode(rows[first : first + self._runner.rows])
        self.load.guessed += len(guesses)
        self.load.guessed_right += self._speculation.learn()
        self._flush()
        for chunk in step.prefill:
            self._prefill(chunk)
        if self.load.decoded > decoded:
            self._speed.observe(self.load.decoded - decoded, now() - started)
        self._report()
        self._flush()

    def _decode(self, rows: list[Row]) -> None:
        rows = [row for row in rows if row.sequence.request_id in self._sequences]
        if not rows:
            return
        started = now()
        try:
            logits = self._runner.decode(rows)
        except Exception as error:  # noqa: BLE001 - found out below whose it is
            sequences = {row.sequence.request_id: row.sequence for row in rows}
            if len(sequences) == 1:
                self._fail(rows[0].sequence, error)
                return
            for sequence in sequences.values():
                self._decode([row for row in rows if row.sequence is sequence])
            return
        seconds = now() - started
        self._speculation.cost.observe(len(rows), seconds)
        self._effort.passed(
            [row.sequence.request_id for row in rows],
            [self._runner.arithmetic.token(row.position + 1 - self._gone(row.sequence)) for row in rows],
            seconds,
        )
        self._failed_in_a_row = 0
        for row, values in zip(rows, logits, strict=True):
            if row.sequence.request_id not in self._sequences or not row.is_true:
                continue
            self._scheduler.advance(row.sequence, row.position + 1)
            if row.sequence.num_cached == len(row.sequence):
                self._sample(row.sequence, values)

    def _prefill(self, chunk: Chunk) -> None:
        sequence = chunk.sequence
        if sequence.request_id not in self._sequences:
            return
        pool = self._pools.get(sequence.request_id)
        logits = None
        started = now()
        try:
            if pool is not None:
                pool.add(self._runner.pool(chunk), chunk.start)
            else:
                logits = self._runner.prefill(chunk)
        except Exception as error:  # noqa: BLE001 - a pass of its own, so its own failure
            self._fail(sequence, error)
            return
        self._failed_in_a_row = 0
        gone = self._gone(sequence)
        flops = self._runner.arithmetic.chunk(chunk.start - gone, chunk.end - gone, last=logits is not None)
        self._effort.passed([sequence.request_id], [flops], now() - started)
        self.load.prefilled += chunk.end - chunk.start
        self._scheduler.advance(sequence, chunk.end)
        if logits is not None:
            self._sample(sequence, logits)
        elif pool is not None and chunk.end == len(sequence):
            self._embed(sequence, pool)

    def _gone(self, sequence: Sequence) -> int:
        """How many tokens of its text a sequence no longer attends to."""
        return sequence.dropped * self._options.block_size

    def _embed(self, sequence: Sequence, pool: MeanPool) -> None:
        try:
            vector = pool.vector()
        except ArithmeticError as error:
            self._fail(sequence, error)
            return
        self._has_worked = True
        self._events.append((sequence.request_id, Embedding(vector)))
        self._end(sequence, FinishReason.STOP)

    def _sample(self, sequence: Sequence, logits: Tensor) -> None:
        if not bool(logits.isfinite().all()):
            self._fail(sequence, ArithmeticError("the logits are not all numbers"))
            return
        sampler = self._samplers[sequence.request_id]
        try:
            token = sampler.sample(logits)
        except Exception as error:  # noqa: BLE001 - one request's own, whatever it is
            self._drop(sequence, error)
            return
        self._has_worked = True
        if token.id in self._options.eos_token_ids:
            self._end(sequence, FinishReason.STOP)
            return
        sequence.generated.append(token.id)
        self.load.decoded += 1
        self._events.append((sequence.request_id, token))
        if sampler.is_complete:
            self._end(sequence, FinishReason.STOP)
        elif (
            len(sequence.generated) >= sampler.params.max_tokens or len(sequence) >= self._options.max_length
        ):
            self._end(sequence, FinishReason.LENGTH)

    def _drop(self, sequence: Sequence, error: Exception) -> None:
        """End a sequence for a fault of its own."""
        _log_failure(sequence, error)
        self.load.failures += 1
        self._end(sequence, FinishReason.ERROR)

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        """End a sequence that the model failed for, which may be the device's fault."""
        self._drop(sequence, error)
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= _BROKEN_AFTER:
            raise Broken(f"{self._failed_in_a_row} sequences failed one after the other") from error

    def _end(self, sequence: Sequence, reason: FinishReason) -> None:
        self._scheduler.remove(sequence, spoilt=reason is FinishReason.ERROR)
        del self._sequences[sequence.request_id]
        self._samplers.pop(sequence.request_id, None)
        self._pools.pop(sequence.request_id, None)
        self._speculation.forget(sequence.request_id)
        self._events.append((sequence.request_id, Finished(reason, self._effort.close(sequence.request_id))))

    def _end_all(self, reason: FinishReason) -> None:
        self._events += [
            (request_id, Finished(reason, self._effort.close(request_id))) for request_id in self._sequences
        ]
        self._flush()

    def _refuse_until_stopped(self) -> None:
        while (command := self._commands.get()) is not None:
            if isinstance(command, Sequence):
                self._post([(command.request_id, Finished(FinishReason.ERROR))])

    def _report(self) -> None:
        load, scheduler = self.load, self._scheduler
        load.running, load.waiting = scheduler.running, scheduler.waiting
        load.free_blocks, load.cached_blocks = self._pool.free, self._pool.cached
        load.tokens_per_second = self._speed.value
        load.joules, load.flops, load.energy_source = (
            self._effort.joules,
            self._effort.flops,
            self._effort.source,
        )
        load.preemptions += scheduler.preemptions
        load.prefix_hits += scheduler.prefix_hits
        scheduler.preemptions = scheduler.prefix_hits = 0

    def _flush(self) -> None:
        if self._events:
            self._post(self._events)
            self._events = []


def _log_failure(sequence: Sequence, error: Exception) -> None:
    facts = {"sequence": sequence.request_id, "error": f"{type(error).__name__}: {error}"[:300]}
    log.error("a request failed", extra={"facts": facts})

"""Runs a step's passes, so that what fails hurts as few sequences as possible.

A pass that fails (memory, usually) is repeated for each of its sequences alone, and only those that fail
again are told so; logits that aren't numbers end their own sequence.
"""

from collections.abc import Sequence as Series

from torch import Tensor

from local_backend.clock import now
from local_backend.engine.answers import Answers
from local_backend.engine.effort import EffortBook
from local_backend.engine.load import Load
from local_backend.engine.pooling import MeanPool
from local_backend.engine.request import Sequence
from local_backend.engine.runner import ModelRunner, Row
from local_backend.engine.scheduler import Chunk, Scheduler
from local_backend.engine.speculation import Speculation

# Sequences that fail one after the other, nothing working between, before the device is taken to be broken.
_BROKEN_AFTER = 3


class Broken(Exception):
    """The device, or what depends on it, doesn't work any more."""


class Passes:
    """Brings the model's results to the answers. Used by the engine's thread alone."""

    def __init__(  # noqa: PLR0913 - the parts that meet here
        self,
        runner: ModelRunner,
        scheduler: Scheduler,
        answers: Answers,
        speculation: Speculation,
        *,
        effort: EffortBook,
        load: Load,
    ) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._answers = answers
        self._speculation = speculation
        self._effort = effort
        self._load = load
        self._failed_in_a_row = 0

    def decode(self, chunks: Series[Chunk]) -> None:
        """Run generated tokens, and beside them guesses at what follows. Raises Broken."""
        rows = [
            Row(chunk.sequence, position, chunk.sequence.token(position))
            for chunk in chunks
            for position in range(chunk.start, chunk.end)
        ]
        guesses = self._speculation.guess(rows)
        rows += guesses
        for first in range(0, len(rows), self._runner.rows):
            self._decode(rows[first : first + self._runner.rows])
        self._load.guessed += len(guesses)
        self._load.guessed_right += self._speculation.learn()

    def prefill(self, chunk: Chunk) -> None:
        """Run a part of a prompt. Raises Broken."""
        sequence = chunk.sequence
        if sequence not in self._answers:
            return
        mean = self._answers.mean(sequence)
        logits = None
        started = now()
        try:
            if mean is not None:
                mean.add(self._runner.pool(chunk), chunk.start)
            else:
                logits = self._runner.prefill(chunk)
        except Exception as error:  # noqa: BLE001 - a pass of its own, so its own failure
            self._fail(sequence, error)
            return
        self._failed_in_a_row = 0
        flops = self._runner.flops_of_chunk(chunk, last=logits is not None)
        self._effort.passed([sequence.request_id], [flops], now() - started)
        sequence.prefilled += chunk.end - chunk.start
        self._load.prefilled += chunk.end - chunk.start
        self._scheduler.advance(sequence, chunk.end)
        if logits is not None:
            self._sample(sequence, logits)
        elif mean is not None and chunk.end == len(sequence):
            self._embed(sequence, mean)

    def _decode(self, rows: list[Row]) -> None:
        rows = [row for row in rows if row.sequence in self._answers]
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
        owners = [row.sequence.request_id for row in rows]
        self._effort.passed(owners, [self._runner.flops_of_row(row) for row in rows], seconds)
        self._failed_in_a_row = 0
        for row, values in zip(rows, logits, strict=True):
            if row.sequence not in self._answers or not row.is_true:
                continue
            self._scheduler.advance(row.sequence, row.position + 1)
            if row.sequence.num_cached == len(row.sequence):
                self._sample(row.sequence, values)

    def _sample(self, sequence: Sequence, logits: Tensor) -> None:
        try:
            self._answers.sample(sequence, logits)
        except ArithmeticError as error:
            self._fail(sequence, error)

    def _embed(self, sequence: Sequence, mean: MeanPool) -> None:
        try:
            self._answers.embed(sequence, mean)
        except ArithmeticError as error:
            self._fail(sequence, error)

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        """End a sequence that the model failed for, which may be the device's fault."""
        self._answers.drop(sequence, error)
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= _BROKEN_AFTER:
            raise Broken(f"{self._failed_in_a_row} sequences failed one after the other") from error

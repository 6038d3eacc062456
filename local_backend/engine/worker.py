"""The engine's thread: takes commands, runs steps, posts what happened.

A failing step means that the model or the device is broken: every open generation is told, and the engine
stays failed until the process restarts.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from torch import Tensor

from local_backend.clock import now
from local_backend.engine.request import Event, Finished, FinishReason, Sequence
from local_backend.engine.runner import ModelRunner
from local_backend.engine.sampler import Sampler
from local_backend.engine.scheduler import Scheduler, Step

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Abort:
    """End a generation at the next step, if it has not ended yet."""

    request_id: int


Command = Sequence | Abort | None
"""A new sequence, an abort, or None to stop the thread."""


@dataclass(frozen=True)
class EngineOptions:
    """max_length is in tokens, prompt and answer together; prefill_budget in prompt tokens a step."""

    max_concurrency: int
    max_queue: int
    max_length: int
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    prefill_budget: int = 512

    def __post_init__(self) -> None:
        if self.max_concurrency < 1 or self.max_queue < 0 or self.prefill_budget < 1:
            raise ValueError("max_concurrency and prefill_budget must be at least 1, max_queue at least 0")


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
        self._scheduler = Scheduler(options.max_concurrency, options.prefill_budget)
        self._sequences: dict[int, Sequence] = {}
        self._samplers: dict[int, Sampler] = {}
        self._events: list[tuple[int, Event]] = []

    def run(self) -> None:
        """Serve until told to stop or until a step fails."""
        try:
            while self._take_commands():
                self._run_step(self._scheduler.next_step())
                self._flush()
            self._finish_all(FinishReason.ABORT)
        # Whatever broke a step, device errors included, has one answer: tell everyone and stop.
        except Exception:
            log.exception("the engine failed")
            self._finish_all(FinishReason.ERROR)
            self._post_failure()
            self._refuse_until_stopped()

    def _take_commands(self) -> bool:
        """Apply what was asked since the last step, waiting while there is nothing to run. False: stop."""
        while self._scheduler.is_idle or not self._commands.empty():
            command = self._commands.get()
            if command is None:
                return False
            if isinstance(command, Sequence):
                self._sequences[command.request_id] = command
                self._samplers[command.request_id] = Sampler(
                    command.params, command.prompt, self._options.vocab_size
                )
                self._scheduler.add(command)
            elif (sequence := self._sequences.get(command.request_id)) is not None:
                self._finish(sequence, FinishReason.ABORT)
                self._flush()
        return True

    def _run_step(self, step: Step) -> None:
        if step.decode:
            logits = self._runner.decode(step.decode)
            for sequence, row in zip(step.decode, logits, strict=True):
                sequence.num_cached += 1
                self._sample(sequence, row)
        for chunk in step.prefill:
            sequence = chunk.sequence
            if sequence.started is None:
                sequence.started = now()
            row = self._runner.prefill(sequence, chunk.start, chunk.end)
            sequence.num_cached = chunk.end
            if sequence.is_prefilled:
                self._sample(sequence, row)

    def _sample(self, sequence: Sequence, logits: Tensor) -> None:
        token = self._samplers[sequence.request_id].sample(logits)
        if token.id in self._options.eos_token_ids:
            self._finish(sequence, FinishReason.STOP)
            return
        sequence.generated.append(token.id)
        self._events.append((sequence.request_id, token))
        length = len(sequence.prompt) + len(sequence.generated)
        if len(sequence.generated) >= sequence.params.max_tokens or length >= self._options.max_length:
            self._finish(sequence, FinishReason.LENGTH)

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        seconds = None if sequence.started is None else now() - sequence.started
        self._scheduler.remove(sequence)
        del self._sequences[sequence.request_id]
        del self._samplers[sequence.request_id]
        self._events.append((sequence.request_id, Finished(reason, seconds)))

    def _finish_all(self, reason: FinishReason) -> None:
        for sequence in self._scheduler.sequences:
            self._finish(sequence, reason)
        self._flush()

    def _refuse_until_stopped(self) -> None:
        while (command := self._commands.get()) is not None:
            if isinstance(command, Sequence):
                self._post([(command.request_id, Finished(FinishReason.ERROR))])

    def _flush(self) -> None:
        if self._events:
            self._post(self._events)
            self._events = []

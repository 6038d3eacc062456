"""The engine's thread: takes commands, runs steps, posts what happened.

When nothing works any more, or the books are wrong, everybody is told and the engine starts anew with an
empty cache; if that fails before it has made a single token, it stays failed.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from local_backend.clock import now
from local_backend.engine.answers import Answers
from local_backend.engine.blocks import BlockPool
from local_backend.engine.effort import EffortBook
from local_backend.engine.load import Load, Speed
from local_backend.engine.options import EngineOptions
from local_backend.engine.passes import Passes
from local_backend.engine.request import Event, Finished, FinishReason, Sequence
from local_backend.engine.runner import ModelRunner
from local_backend.engine.scheduler import Scheduler, Step
from local_backend.engine.speculation import Speculation

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Abort:
    """End a generation at the next step, if it has not ended yet."""

    request_id: int


Command = Sequence | Abort | None
"""A new sequence, an abort, or None to stop the thread."""


class Worker:
    """Owns the scheduler, the runner and the answers; `run` is the thread's whole life."""

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
                has_worked = self._answers.has_worked
                self.load.restarts += has_worked
                self._end_all(FinishReason.ERROR)
                if not has_worked:
                    self._post_failure()
                    self._refuse_until_stopped()
                    return
            else:
                self._end_all(FinishReason.ABORT)
                return

    def _start_anew(self) -> None:
        options, runner, effort, load = self._options, self._runner, self._effort, self.load
        speculation = Speculation(options.guesses, runner.rows, options.block_size)
        self._pool = BlockPool(options.blocks, options.block_size)
        self._scheduler = Scheduler(self._pool, options.scheduling)
        self._answers = Answers(options, self._scheduler, speculation, effort, load)
        self._passes = Passes(runner, self._scheduler, self._answers, speculation, effort=effort, load=load)

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
                self._answers.add(command)
            else:
                self._answers.abort(command.request_id)
            self._flush()

    def _run_step(self, step: Step) -> None:
        started, decoded = now(), self.load.decoded
        self._passes.decode(step.decode)
        self._flush()
        for chunk in step.prefill:
            self._passes.prefill(chunk)
        if self.load.decoded > decoded:
            self._speed.observe(self.load.decoded - decoded, now() - started)
        self._flush()

    def _end_all(self, reason: FinishReason) -> None:
        self._answers.end_all(reason)
        events = self._answers.take_events()
        self._start_anew()
        self._report()
        self._post(events)

    def _refuse_until_stopped(self) -> None:
        while (command := self._commands.get()) is not None:
            if isinstance(command, Sequence):
                self._post([(command.request_id, Finished(FinishReason.ERROR))])

    def _report(self) -> None:
        load, scheduler, effort = self.load, self._scheduler, self._effort
        load.free_blocks, load.cached_blocks = self._pool.free, self._pool.cached
        load.tokens_per_second = self._speed.value
        load.joules, load.flops, load.energy_source = effort.joules, effort.flops, effort.source
        load.preemptions += scheduler.preemptions
        load.prefix_hits += scheduler.prefix_hits
        scheduler.preemptions = scheduler.prefix_hits = 0
        # Last: who reads meanwhile that nothing runs shall read of no block held.
        load.running, load.waiting = scheduler.running, scheduler.waiting

    def _flush(self) -> None:
        """Post what has happened; the load tells of it by then."""
        self._report()
        if events := self._answers.take_events():
            self._post(events)

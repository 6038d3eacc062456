"""The open sequences: how the next token of each is chosen, when it ends, and what is to be told of it."""

import logging

from torch import Tensor

from local_backend.engine.effort import EffortBook
from local_backend.engine.load import Load
from local_backend.engine.options import EngineOptions
from local_backend.engine.pooling import MeanPool
from local_backend.engine.request import Embedding, Event, Finished, FinishReason, Sequence
from local_backend.engine.sampler import Sampler
from local_backend.engine.scheduler import Scheduler
from local_backend.engine.speculation import Speculation

log = logging.getLogger(__name__)


class Answers:
    """Used by the engine's thread alone. `has_worked`: something has come of a pass since the start."""

    def __init__(
        self,
        options: EngineOptions,
        scheduler: Scheduler,
        speculation: Speculation,
        effort: EffortBook,
        load: Load,
    ) -> None:
        self._options = options
        self._scheduler = scheduler
        self._speculation = speculation
        self._effort = effort
        self._load = load
        self._sequences: dict[int, Sequence] = {}
        self._samplers: dict[int, Sampler] = {}
        self._means: dict[int, MeanPool] = {}
        self._events: list[tuple[int, Event]] = []
        self.has_worked = False

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence.request_id in self._sequences

    def add(self, sequence: Sequence) -> None:
        """Open a sequence; one that can't be sampled ends at once."""
        try:
            if sequence.params is None:
                self._means[sequence.request_id] = MeanPool()
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

    def abort(self, request_id: int) -> None:
        """End a sequence that nobody wants any more, if it has not ended yet."""
        if (sequence := self._sequences.get(request_id)) is not None:
            self._end(sequence, FinishReason.ABORT)

    def mean(self, sequence: Sequence) -> MeanPool | None:
        """Where the hidden states of a sequence belong whose vector is wanted."""
        return self._means.get(sequence.request_id)

    def sample(self, sequence: Sequence, logits: Tensor) -> None:
        """Choose the next token. Raises ArithmeticError when the logits are not numbers."""
        if not bool(logits.isfinite().all()):
            raise ArithmeticError("the logits are not all numbers")
        sampler = self._samplers[sequence.request_id]
        try:
            token = sampler.sample(logits)
        except Exception as error:  # noqa: BLE001 - one request's own, whatever it is
            self.drop(sequence, error)
            return
        self.has_worked = True
        if token.id in self._options.eos_token_ids:
            self._end(sequence, FinishReason.STOP)
            return
        sequence.generated.append(token.id)
        self._load.decoded += 1
        self._events.append((sequence.request_id, token))
        if sampler.is_complete:
            self._end(sequence, FinishReason.STOP)
        elif (
            len(sequence.generated) >= sampler.params.max_tokens or len(sequence) >= self._options.max_length
        ):
            self._end(sequence, FinishReason.LENGTH)

    def embed(self, sequence: Sequence, mean: MeanPool) -> None:
        """Give a text's vector. Raises ArithmeticError when it is not numbers."""
        vector = mean.vector()
        self.has_worked = True
        self._events.append((sequence.request_id, Embedding(vector)))
        self._end(sequence, FinishReason.STOP)

    def drop(self, sequence: Sequence, error: Exception) -> None:
        """End a sequence for a failure."""
        _log_failure(sequence, error)
        self._load.failures += 1
        self._end(sequence, FinishReason.ERROR)

    def end_all(self, reason: FinishReason) -> None:
        """End whatever is open; nothing else is to be done with these answers."""
        for request_id in self._sequences:
            self._events.append((request_id, Finished(reason, self._effort.close(request_id))))

    def take_events(self) -> list[tuple[int, Event]]:
        """What has happened since the last time."""
        events, self._events = self._events, []
        return events

    def _end(self, sequence: Sequence, reason: FinishReason) -> None:
        request_id = sequence.request_id
        self._scheduler.remove(sequence, spoilt=reason is FinishReason.ERROR)
        del self._sequences[request_id]
        self._samplers.pop(request_id, None)
        self._means.pop(request_id, None)
        self._speculation.forget(request_id)
        effort = self._effort.close(request_id)
        self._events.append((request_id, Finished(reason, effort, sequence.cached_prompt)))


def _log_failure(sequence: Sequence, error: Exception) -> None:
    facts = {"sequence": sequence.request_id, "error": f"{type(error).__name__}: {error}"[:300]}
    log.error("a request failed", extra={"facts": facts})

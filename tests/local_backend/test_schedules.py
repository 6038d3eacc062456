"""However a sequence is scheduled, its logits are those of its tokens run in one go."""

from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from local_backend.engine.blocks import BlockPool
from local_backend.engine.latents import LatentPool
from local_backend.engine.request import SamplingParams, Sequence
from local_backend.engine.runner import ModelRunner, Row
from local_backend.engine.scheduler import Scheduler, SchedulerOptions
from local_backend.model.model import DeepseekV3
from local_backend.weights.load import load_model
from tests.local_backend.conftest import make_oracle

CPU = torch.device("cpu")
SIZE = 4
LONGEST = 40
PARAMS = SamplingParams(max_tokens=8, temperature=0.0)


@cache
def tiny_model() -> DeepseekV3:
    with TemporaryDirectory() as folder:
        make_oracle(Path(folder))
        return load_model(Path(folder), 64, CPU, torch.float32)


@torch.inference_mode()
def one_shot(tokens: tuple[int, ...]) -> Tensor:
    """The logits after every token, computed in one pass."""
    model = tiny_model()
    view = LatentPool(model.config, 1, 64, CPU).rows([0], 0, len(tokens))
    return model.logits(model(torch.tensor([tokens]), torch.arange(len(tokens))[None], view))[0]


@dataclass(frozen=True)
class Arrival:
    """A sequence that begins like the others; `aborted` after so many steps, if it still runs."""

    shared: int
    own: int
    priority: int
    at: int
    aborted: int | None


ARRIVALS = st.builds(
    Arrival,
    shared=st.integers(0, 20),
    own=st.integers(1, 12),
    priority=st.integers(0, 2),
    at=st.integers(0, 6),
    aborted=st.none() | st.integers(1, 12),
)


class Machine:
    """The engine without its thread: `step` runs what the scheduler chose, `told` keeps the logits."""

    def __init__(self, options: SchedulerOptions, rows: int, blocks: int) -> None:
        self.pool = BlockPool(blocks, SIZE)
        self.scheduler = Scheduler(self.pool, options)
        latents = LatentPool(tiny_model().config, blocks, SIZE, CPU)
        self.runner = ModelRunner(tiny_model(), latents, CPU, rows)
        self.open: dict[int, Sequence] = {}
        self.told: list[tuple[tuple[int, ...], Tensor]] = []

    def add(self, index: int, arrival: Arrival) -> None:
        prompt = (*range(arrival.shared), *(100 + 20 * index + each for each in range(arrival.own)))
        self.open[index] = Sequence(index, prompt, PARAMS, arrival.priority)
        self.scheduler.add(self.open[index])

    def remove(self, index: int) -> None:
        self.scheduler.remove(self.open.pop(index))

    def step(self) -> None:
        step = self.scheduler.next_step()
        pending = [
            Row(each.sequence, position, each.sequence.token(position))
            for each in step.decode
            for position in range(each.start, each.end)
        ]
        for first in range(0, len(pending), self.runner.rows):
            batch = pending[first : first + self.runner.rows]
            for row, logits in zip(batch, self.runner.decode(batch), strict=True):
                self._advance(row.sequence, row.position + 1, logits)
        for each in step.prefill:
            self._advance(each.sequence, each.end, self.runner.prefill(each))

    def _advance(self, sequence: Sequence, end: int, logits: Tensor | None) -> None:
        self.scheduler.advance(sequence, end)
        if logits is None or end < len(sequence):
            return
        self.told.append((sequence.tokens(0, end), logits))
        sequence.generated.append(int(logits.argmax()))
        if len(sequence.generated) == PARAMS.max_tokens:
            self.remove(sequence.request_id)


OPTIONS = st.builds(
    SchedulerOptions,
    max_concurrency=st.integers(1, 4),
    prefill_budget=st.integers(1, 12),
    chunk=st.sampled_from([4, 8]),
    replay=st.just(3),
    share_answers=st.booleans(),
)


@settings(max_examples=25)
@given(
    st.lists(ARRIVALS, min_size=1, max_size=6), OPTIONS, st.integers(1, 5), st.integers(LONGEST // SIZE, 24)
)
def test_every_schedule_gives_the_logits_of_one_pass(
    arrivals: list[Arrival], options: SchedulerOptions, rows: int, blocks: int
) -> None:
    machine = Machine(options, rows, blocks)
    for moment in count():
        for index, arrival in enumerate(arrivals):
            if arrival.at == moment:
                machine.add(index, arrival)
            elif index in machine.open and arrival.aborted == moment - arrival.at:
                machine.remove(index)
        if not machine.open and all(arrival.at < moment for arrival in arrivals):
            break
        machine.step()
    machine.pool.check()
    for tokens, logits in machine.told:
        torch.testing.assert_close(logits, one_shot(tokens)[-1], atol=1e-5, rtol=0)

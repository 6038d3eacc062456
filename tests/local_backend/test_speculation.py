"""Guessing ahead changes how fast an answer comes, and nothing else."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from local_backend.engine.engine import Engine, Generation
from local_backend.engine.latents import LatentPool
from local_backend.engine.load import Load
from local_backend.engine.options import EngineOptions
from local_backend.engine.request import Finished, SamplingParams
from local_backend.engine.runner import ModelRunner
from local_backend.engine.scheduler import SchedulerOptions
from local_backend.engine.speculation import PassCost, PromptLookup
from local_backend.model.model import DeepseekV3
from local_backend.weights.load import load_model
from tests.local_backend.conftest import make_oracle

CPU = torch.device("cpu")
LENGTH, SIZE, VOCABULARY = 128, 16, 12
GREEDY = SamplingParams(max_tokens=80, temperature=0.0)
SAMPLED = SamplingParams(max_tokens=60, temperature=0.7, presence_penalty=0.2, seed=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DeepseekV3:
    """A vocabulary so small that texts repeat themselves."""
    folder: Path = tmp_path_factory.mktemp("tiny")
    make_oracle(folder, vocab_size=VOCABULARY)
    return load_model(folder, LENGTH, CPU, torch.float32)


def run(
    model: DeepseekV3, guesses: int, submit: Callable[[Engine], list[Generation]]
) -> tuple[list[list[int]], Load]:
    options = EngineOptions(
        max_queue=2000,
        max_length=LENGTH,
        vocab_size=VOCABULARY,
        eos_token_ids=(),
        blocks=64,
        block_size=SIZE,
        scheduling=SchedulerOptions(max_concurrency=4, prefill_budget=2 * SIZE, chunk=SIZE),
        guesses=guesses,
    )

    async def texts() -> tuple[list[list[int]], Load]:
        engine = Engine(ModelRunner(model, LatentPool(model.config, 64, SIZE, CPU), CPU), options)
        engine.start()
        found = [await collect(generation) for generation in submit(engine)]
        await engine.stop()
        assert engine.load.free_blocks == engine.load.blocks
        return found, engine.load

    return asyncio.run(texts())


async def collect(generation: Generation) -> list[int]:
    return [event.id async for _, event in generation if not isinstance(event, Finished)]


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows cost what they are taken to cost at first, however busy the machine is."""
    monkeypatch.setattr(PassCost, "observe", lambda *_: None)


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("params", [GREEDY, SAMPLED, replace(SAMPLED, temperature=1.5, top_p=0.8)])
def test_the_text_is_the_same_as_without(model: DeepseekV3, params: SamplingParams) -> None:
    def submit(engine: Engine) -> list[Generation]:
        prompts = [[seed, 5, 6, 7, 8, 5, 6, 7, 8, 5, 6] for seed in range(6)]
        return [engine.submit([prompt], [params]) for prompt in prompts]

    plain, _ = run(model, 0, submit)
    fast, load = run(model, 8, submit)
    assert fast == plain
    assert load.guessed_right > 0
    assert load.guessed_right < load.guessed


@pytest.mark.usefixtures("unmeasured")
def test_the_distribution_is_the_same_as_without(model: DeepseekV3) -> None:
    """Chi-square over the second and third token, both guessed at: the prompt has every pair of tokens."""
    count = 300
    params = SamplingParams(
        max_tokens=3, temperature=1.0, logit_bias=dict.fromkeys(range(4, VOCABULARY), -100.0)
    )
    pairs = [0, 0, 1, 1, 2, 0, 2, 2, 3, 1, 3, 3, 0, 3, 2, 1, 0]

    def submit(engine: Engine) -> list[Generation]:
        return [engine.submit([pairs], [replace(params, seed=seed)]) for seed in seeds]

    seeds = range(count)
    plain = Counter(tuple(text[1:]) for text in run(model, 0, submit)[0])
    seeds = range(count, 2 * count)
    texts, load = run(model, 8, submit)
    fast = Counter(tuple(text[1:]) for text in texts)
    assert load.guessed > count
    common = [pair for pair in plain | fast if plain[pair] + fast[pair] >= 10]
    rest = (count - sum(plain[pair] for pair in common), count - sum(fast[pair] for pair in common))
    cells = [*((plain[pair], fast[pair]) for pair in common), rest]
    cells = [cell for cell in cells if sum(cell)]
    statistic = sum((one - other) ** 2 / (one + other) for one, other in cells)
    freedom = len(cells) - 1
    assert freedom >= 8
    # The 99.9th percentile, by Wilson and Hilferty's approximation.
    assert statistic < freedom * (1 - 2 / (9 * freedom) + 3.09 * (2 / (9 * freedom)) ** 0.5) ** 3


@settings(max_examples=100)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=60), st.integers(1, 8))
def test_a_proposal_followed_the_last_tokens_before(tokens: list[int], count: int) -> None:
    lookup = PromptLookup()
    lookup.extend(tokens)
    proposal = lookup.propose(count)
    text = "".join(map(str, tokens))
    assert len(proposal) <= count
    if proposal:
        assert text[-2:] + "".join(map(str, proposal)) in text
    else:
        assert text[-2:] not in text[:-1]


def test_a_row_costs_what_passes_take() -> None:
    cost = PassCost()
    guess = cost.of_row(1)
    cost.observe(1, 1.0)
    assert cost.of_row(1) == guess
    for rows in (1, 5, 3, 8) * 20:
        cost.observe(rows, 0.9 + 0.1 * rows)
    assert cost.of_row(1) == pytest.approx(0.1, abs=0.01)
    # Eight sequences in a pass share it: a row costs 0.1 of 1.7 for eight.
    assert cost.of_row(8) == pytest.approx(0.8 / 1.7, abs=0.01)

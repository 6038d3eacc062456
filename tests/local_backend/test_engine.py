import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from local_backend.engine.admission import QueueFull
from local_backend.engine.cache import LatentCache
from local_backend.engine.engine import Engine, EngineStopped, Generation
from local_backend.engine.request import Finished, FinishReason, SamplingParams
from local_backend.engine.runner import ModelRunner
from local_backend.engine.worker import EngineOptions
from local_backend.model.model import DeepseekV3
from local_backend.weights.load import load_model
from tests.local_backend.conftest import make_oracle

CPU = torch.device("cpu")
LENGTH = 128
SAMPLED = SamplingParams(max_tokens=20, temperature=1.0, top_p=0.95, seed=11)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DeepseekV3:
    folder: Path = tmp_path_factory.mktemp("tiny")
    make_oracle(folder)
    return load_model(folder, LENGTH, CPU, torch.float32)


@pytest.fixture
async def engine(model: DeepseekV3) -> AsyncIterator[Engine]:
    cache = LatentCache(model.config, 4, LENGTH, CPU, torch.float32)
    options = EngineOptions(4, 4, LENGTH, vocab_size=256, eos_token_ids=(), prefill_budget=16)
    engine = Engine(ModelRunner(model, cache, CPU), options)
    engine.start()
    yield engine
    await engine.stop()


def prompt(seed: int, length: int) -> list[int]:
    return torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


async def collect(generation: Generation) -> tuple[list[int], FinishReason]:
    tokens = []
    async for _, event in generation:
        if isinstance(event, Finished):
            return tokens, event.reason
        tokens.append(event.id)
    raise AssertionError("no Finished event")


async def test_a_seeded_result_is_the_same_alone_and_in_company(engine: Engine) -> None:
    wanted = prompt(1, 30)
    alone = await collect(engine.submit([wanted], [SAMPLED]))
    others = [engine.submit([prompt(seed, 10 + seed)], [replace(SAMPLED, seed=seed)]) for seed in (2, 3)]
    among = engine.submit([wanted], [SAMPLED])
    results = await asyncio.gather(collect(among), *(collect(other) for other in others))
    assert results[0] == alone
    assert alone[1] is FinishReason.LENGTH
    assert len(alone[0]) == 20


async def test_greedy_decoding_equals_the_oracles(engine: Engine, tmp_path: Path) -> None:
    oracle = make_oracle(tmp_path)
    ids = prompt(5, 20)
    tokens, _ = await collect(engine.submit([ids], [SamplingParams(max_tokens=12, temperature=0.0)]))
    for token in tokens:
        with torch.inference_mode():
            assert int(oracle(torch.tensor([ids])).logits[0, -1].argmax()) == token
        ids.append(token)


async def test_the_context_ends_a_sequence(engine: Engine) -> None:
    params = SamplingParams(max_tokens=1000, temperature=0.0)
    tokens, reason = await collect(engine.submit([prompt(1, LENGTH - 3)], [params]))
    assert (len(tokens), reason) == (3, FinishReason.LENGTH)


async def test_abort_frees_the_place_of_running_and_of_waiting_sequences(engine: Engine) -> None:
    endless = SamplingParams(max_tokens=100, temperature=0.0)
    generations = [engine.submit([prompt(seed, 8)], [endless]) for seed in range(8)]
    with pytest.raises(QueueFull):
        engine.submit([[1]], [endless])
    for generation in generations:
        generation.abort()
    reasons = [(await collect(generation))[1] for generation in generations]
    assert reasons.count(FinishReason.ABORT) >= 4
    assert engine.admission.open == 0
    _, reason = await collect(engine.submit([prompt(1, 8)], [replace(endless, max_tokens=2)]))
    assert reason is FinishReason.LENGTH


async def test_a_failing_step_tells_everyone_and_refuses_more(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = asyncio.Event()
    engine.on_failure(told.set)

    def broken(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("device lost")

    monkeypatch.setattr(ModelRunner, "prefill", broken)
    _, reason = await collect(engine.submit([[1, 2]], [SAMPLED]))
    assert reason is FinishReason.ERROR
    await asyncio.wait_for(told.wait(), 10)
    with pytest.raises(EngineStopped):
        engine.submit([[1, 2]], [SAMPLED])

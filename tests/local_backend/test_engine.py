"""The engine with a small random model: results don't depend on company, and failures stay small."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from local_backend.engine.admission import QueueFull
from local_backend.engine.engine import Engine, EngineStopped, Generation
from local_backend.engine.latents import LatentPool
from local_backend.engine.options import EngineOptions
from local_backend.engine.request import Embedding, Finished, FinishReason, SamplingParams
from local_backend.engine.runner import ModelRunner, Row
from local_backend.engine.sampler import Sampler
from local_backend.engine.scheduler import SchedulerOptions
from local_backend.model.model import DeepseekV3
from local_backend.weights.load import load_model
from tests.kit.processes import PATIENCE
from tests.local_backend.conftest import make_oracle

CPU = torch.device("cpu")
LENGTH = 128
SIZE = 8
SAMPLED = SamplingParams(max_tokens=20, temperature=1.0, top_p=0.95, seed=11)
GREEDY = SamplingParams(max_tokens=20, temperature=0.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DeepseekV3:
    folder: Path = tmp_path_factory.mktemp("tiny")
    make_oracle(folder)
    return load_model(folder, LENGTH, CPU, torch.float32)


def make_engine(model: DeepseekV3, blocks: int = 64) -> Engine:
    options = EngineOptions(
        max_queue=4,
        max_length=LENGTH,
        vocab_size=256,
        eos_token_ids=(),
        blocks=blocks,
        block_size=SIZE,
        scheduling=SchedulerOptions(max_concurrency=4, prefill_budget=2 * SIZE, chunk=SIZE, replay=4),
    )
    return Engine(ModelRunner(model, LatentPool(model.config, blocks, SIZE, CPU), CPU, rows=3), options)


@pytest.fixture
async def engine(model: DeepseekV3) -> AsyncIterator[Engine]:
    engine = make_engine(model)
    engine.start()
    yield engine
    await engine.stop()
    assert engine.load.free_blocks == engine.load.blocks


def prompt(seed: int, length: int) -> list[int]:
    return torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


async def collect(generation: Generation) -> tuple[list[int], FinishReason]:
    tokens = []
    async for _, event in generation:
        if isinstance(event, Finished):
            return tokens, event.reason
        tokens.append(event.id)
    raise AssertionError("no Finished event")


@contextmanager
def halted(kind: str) -> Iterator[threading.Event]:
    """No pass of this kind gets on; the event is set once one is waiting."""
    run = getattr(ModelRunner, kind)
    is_waiting, go_on = threading.Event(), threading.Event()

    def held(*args: Any) -> Any:
        is_waiting.set()
        assert go_on.wait(PATIENCE)
        return run(*args)

    with pytest.MonkeyPatch.context() as halting:
        halting.setattr(ModelRunner, kind, held)
        try:
            yield is_waiting
        finally:
            go_on.set()


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
    tokens, _ = await collect(engine.submit([ids], [replace(GREEDY, max_tokens=12)]))
    for token in tokens:
        with torch.inference_mode():
            assert int(oracle(torch.tensor([ids])).logits[0, -1].argmax()) == token
        ids.append(token)


@pytest.mark.parametrize("begun", [1, 7, 13])
async def test_an_answer_goes_on_from_its_own_tokens(engine: Engine, begun: int) -> None:
    params = replace(GREEDY, frequency_penalty=0.5)
    whole, _ = await collect(engine.submit([prompt(4, 20)], [params]))
    rest, _ = await collect(engine.submit([prompt(4, 20)], [params], begun=whole[:begun]))
    assert whole[:begun] + rest == whole


async def test_an_embedding_is_the_mean_of_the_hidden_states(engine: Engine, model: DeepseekV3) -> None:
    ids = prompt(6, 3 * SIZE + 5)
    for _ in range(2):
        events = [event async for _, event in engine.submit([ids], [None])]
        assert [type(event) for event in events] == [Embedding, Finished]
    with torch.inference_mode():
        view = LatentPool(model.config, 1, LENGTH, CPU).rows([0], 0, len(ids))
        hidden = model(torch.tensor([ids]), torch.arange(len(ids))[None], view)[0]
    expected = torch.nn.functional.normalize(hidden.mean(0), dim=0)
    torch.testing.assert_close(torch.tensor(events[0].values), expected, atol=1e-5, rtol=0)


async def test_the_context_ends_a_sequence(engine: Engine) -> None:
    tokens, reason = await collect(engine.submit([prompt(1, LENGTH - 3)], [replace(GREEDY, max_tokens=1000)]))
    assert (len(tokens), reason) == (3, FinishReason.LENGTH)


async def test_a_shared_prefix_is_computed_once_for_a_tenant(engine: Engine) -> None:
    shared = prompt(7, 4 * SIZE)
    first = await collect(engine.submit([[*shared, 1]], [GREEDY], tenant="a"))
    hits = engine.load.prefix_hits
    assert await collect(engine.submit([[*shared, 1]], [GREEDY], tenant="b")) == first
    assert engine.load.prefix_hits == hits
    assert await collect(engine.submit([[*shared, 1]], [GREEDY], tenant="a")) == first
    assert engine.load.prefix_hits == hits + 4 * SIZE


async def test_choices_of_one_prompt_compute_it_once(engine: Engine) -> None:
    ids = prompt(8, 4 * SIZE)
    generation = engine.submit([ids] * 3, [replace(SAMPLED, seed=seed) for seed in range(3)])
    ended = [event async for _, event in generation if isinstance(event, Finished)]
    assert len(ended) == 3
    assert engine.load.prefix_hits == 2 * 3 * SIZE


async def test_abort_frees_the_place_of_running_and_of_waiting_sequences(engine: Engine) -> None:
    endless = replace(GREEDY, max_tokens=100)
    with halted("decode") as is_decoding:
        generations = [engine.submit([prompt(seed, 8)], [endless]) for seed in range(8)]
        with pytest.raises(QueueFull):
            engine.submit([[1]], [endless])
        assert await asyncio.to_thread(is_decoding.wait, PATIENCE)
        for generation in generations:
            generation.abort()
    reasons = [(await collect(generation))[1] for generation in generations]
    assert reasons == [FinishReason.ABORT] * 8
    assert engine.admission.open == 0
    _, reason = await collect(engine.submit([prompt(1, 8)], [replace(endless, max_tokens=2)]))
    assert reason is FinishReason.LENGTH


async def test_the_urgent_is_served_first(engine: Engine) -> None:
    order: list[int] = []

    async def note(name: int, generation: Generation) -> None:
        await collect(generation)
        order.append(name)

    with halted("prefill"):
        tasks = [
            note(index, engine.submit([prompt(index, 8)], [GREEDY], priority=priority))
            for index, priority in enumerate([5, 5, 5, 5, 5, 5, 0])
        ]
    await asyncio.gather(*tasks)
    assert order.index(6) < 4
    assert sorted(order) == list(range(7))


async def test_preempted_sequences_say_the_same(model: DeepseekV3) -> None:
    prompts = [prompt(seed, 20 + 5 * seed) for seed in range(4)]
    params = [replace(GREEDY, max_tokens=60)] * 4
    roomy, tight = make_engine(model), make_engine(model, blocks=LENGTH // SIZE)
    roomy.start()
    alone = [await collect(roomy.submit([each], params[:1])) for each in prompts]
    await roomy.stop()
    tight.start()
    with halted("prefill"):
        generations = [tight.submit([each], params[:1]) for each in prompts]
    together = await asyncio.gather(*map(collect, generations))
    await tight.stop()
    assert list(together) == alone
    assert tight.load.preemptions > 0
    assert tight.load.free_blocks == tight.load.blocks


def poison(monkeypatch: pytest.MonkeyPatch, token: int, how: str) -> None:
    """Whatever decodes this token fails."""
    decode = ModelRunner.decode

    def poisoned(self: ModelRunner, rows: list[Row]) -> torch.Tensor:
        sick = [row.sequence.prompt[0] == token for row in rows]
        if how == "raises" and any(sick):
            raise RuntimeError("out of memory")
        return decode(self, rows).masked_fill(torch.tensor(sick)[:, None], float("nan"))

    monkeypatch.setattr(ModelRunner, "decode", poisoned)


async def test_whoever_has_an_answer_reads_a_load_without_it(engine: Engine) -> None:
    """Also while the rest of the step in which it ended goes on."""
    with ExitStack() as rest:
        with halted("decode") as is_decoding:
            first = engine.submit([prompt(1, SIZE)], [replace(GREEDY, max_tokens=3)])
            assert await asyncio.to_thread(is_decoding.wait, PATIENCE)
            second = engine.submit([prompt(2, SIZE)], [replace(GREEDY, max_tokens=1)])
            rest.enter_context(halted("prefill"))
        await collect(first)
        load = engine.load
        assert (load.running, load.blocks - load.free_blocks) == (1, 1)
    await collect(second)


@pytest.mark.parametrize("how", ["raises", "not a number"])
async def test_a_poisoned_request_hurts_only_itself(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    healthy = [[1, *prompt(seed, 12)] for seed in range(3)]
    alone = [await collect(engine.submit([each], [GREEDY])) for each in healthy]
    poison(monkeypatch, 77, how)
    sick = engine.submit([[77, *prompt(9, 12)]], [GREEDY])
    together = await asyncio.gather(*(collect(engine.submit([each], [GREEDY])) for each in healthy))
    assert list(together) == alone
    assert (await collect(sick))[1] is FinishReason.ERROR
    assert (engine.load.failures, engine.load.restarts) == (1, 0)


async def test_a_sampler_that_raises_ends_its_own_request(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = Sampler.sample

    def picky(self: Sampler, logits: torch.Tensor) -> Any:
        if self.params.seed == 13:
            raise ValueError("a grammar that accepts nothing")
        return sample(self, logits)

    monkeypatch.setattr(Sampler, "sample", picky)
    sick = [collect(engine.submit([prompt(1, 9)], [replace(SAMPLED, seed=13)])) for _ in range(4)]
    well = collect(engine.submit([prompt(2, 9)], [SAMPLED]))
    results = await asyncio.gather(*sick, well)
    assert [reason for _, reason in results] == [FinishReason.ERROR] * 4 + [FinishReason.LENGTH]
    assert engine.load.restarts == 0


async def test_a_failed_engine_tells_everyone_and_starts_anew(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await collect(engine.submit([prompt(1, 20)], [GREEDY]))
    with monkeypatch.context() as broken:
        with halted("decode") as is_decoding:
            lost = [engine.submit([prompt(2, 20)], [GREEDY])]
            assert await asyncio.to_thread(is_decoding.wait, PATIENCE)
            lost += [engine.submit([prompt(seed, 20)], [GREEDY]) for seed in (3, 4)]
            broken.setattr("local_backend.engine.blocks.BlockPool.take", lambda _: 1 / 0)
        assert {(await collect(each))[1] for each in lost} == {FinishReason.ERROR}
    assert await collect(engine.submit([prompt(1, 20)], [GREEDY])) == before
    assert engine.load.restarts == 1


async def test_lost_blocks_are_found_when_idle(engine: Engine) -> None:
    await collect(engine.submit([prompt(1, 20)], [GREEDY]))
    engine._worker._pool.take()
    before = await collect(engine.submit([prompt(1, 20)], [GREEDY]))
    assert await collect(engine.submit([prompt(1, 20)], [GREEDY])) == before
    assert engine.load.restarts == 1


async def test_a_device_that_is_gone_stops_the_engine(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = asyncio.Event()
    engine.on_failure(told.set)

    def broken(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("device lost")

    monkeypatch.setattr(ModelRunner, "prefill", broken)
    lost = [engine.submit([[1, seed]], [SAMPLED]) for seed in range(4)]
    assert {(await collect(each))[1] for each in lost} == {FinishReason.ERROR}
    await asyncio.wait_for(told.wait(), PATIENCE)
    with pytest.raises(EngineStopped):
        engine.submit([[1, 2]], [SAMPLED])

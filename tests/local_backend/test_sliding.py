"""Texts without an end: a window that slides, its first tokens kept, against StreamingLLM's definition."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from local_backend.engine.blocks import BlockPool
from local_backend.engine.engine import Engine
from local_backend.engine.latents import LatentPool
from local_backend.engine.load import Load
from local_backend.engine.options import EngineOptions
from local_backend.engine.request import Finished, FinishReason, SamplingParams, Sequence
from local_backend.engine.runner import ModelRunner, Row
from local_backend.engine.scheduler import Scheduler, SchedulerOptions
from local_backend.engine.window import Window
from local_backend.errors import ConfigError
from local_backend.lengths import Lengths
from local_backend.model.config import RopeConfig
from local_backend.model.long_context import Extension
from local_backend.model.mla import MultiHeadLatentAttention
from local_backend.model.model import DeepseekV3
from local_backend.model.rope import RotaryEmbedding, rotate
from local_backend.model.sliding import SlidRotary
from local_backend.weights.load import load_model
from tests.local_backend.conftest import make_oracle
from tests.local_backend.server_process import ServerProcess

CPU = torch.device("cpu")
SIZE = 8
WINDOW = Window(sinks=1, recent=5)
WIDE_STEPS = Window(sinks=1, recent=5, step=2)
KEPT = WINDOW.blocks * SIZE
GREEDY = SamplingParams(max_tokens=40, temperature=0.0)
SAMPLED = SamplingParams(max_tokens=40, temperature=1.0, seed=5)


def make_model(folder: Path, nope: int) -> DeepseekV3:
    make_oracle(folder, qk_nope_head_dim=nope)
    model = load_model(folder, KEPT, CPU, torch.float32)
    model.config = replace(model.config, sinks=SIZE)
    return model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DeepseekV3:
    return make_model(tmp_path_factory.mktemp("tiny"), 16)


def scheduling(window: Window | None) -> SchedulerOptions:
    chunk = SIZE * (window.step if window else 1)
    return SchedulerOptions(4, prefill_budget=3 * SIZE, chunk=chunk, replay=5, window=window)


def ask(
    model: DeepseekV3,
    prompts: list[list[int]],
    params: SamplingParams,
    window: Window | None = WINDOW,
    blocks: int = 3 * WINDOW.blocks,
) -> tuple[list[list[int]], Load]:
    """The answers to prompts asked one after the other, then all at once; both must be the same."""
    options = EngineOptions(
        max_queue=9,
        max_length=KEPT if window is None else 10_000,
        vocab_size=256,
        eos_token_ids=(),
        blocks=blocks,
        block_size=SIZE,
        scheduling=scheduling(window),
    )

    async def answer(engine: Engine, prompt: list[int]) -> list[int]:
        events = [event async for _, event in engine.submit([prompt], [params])]
        assert events[-1] == Finished(FinishReason.LENGTH)
        return [event.id for event in events[:-1]]

    async def texts() -> tuple[list[list[int]], Load]:
        engine = Engine(ModelRunner(model, LatentPool(model.config, blocks, SIZE, CPU), CPU), options)
        engine.start()
        alone = [await answer(engine, prompt) for prompt in prompts]
        assert alone == list(await asyncio.gather(*(answer(engine, prompt) for prompt in prompts)))
        await engine.stop()
        assert engine.load.free_blocks == blocks
        assert engine.load.failures == 0
        return alone, engine.load

    return asyncio.run(texts())


def prompt(seed: int, length: int) -> list[int]:
    return torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def places(window: Window, position: int) -> dict[int, int]:
    """What the text's `position` sees: positions in the text, to places in the cache."""
    gone = window.dropped(position // SIZE) * SIZE
    first = window.sinks * SIZE
    return {
        key: key - gone * (key >= first) for key in range(position + 1) if not first <= key < first + gone
    }


def test_a_window_keeps_the_first_and_the_last_and_never_more() -> None:
    for window in (WINDOW, WIDE_STEPS, Window(2, 4, 3)):
        for position in range(300):
            seen = places(window, position)
            assert list(seen.values()) == list(range(len(seen)))
            assert len(seen) <= window.blocks * SIZE
            assert set(range(min(window.sinks * SIZE, position))) <= seen.keys()
            latest = (window.recent - window.step) * SIZE
            assert set(range(max(0, position - latest), position + 1)) <= seen.keys()


def test_scores_are_those_of_places_in_the_cache() -> None:
    sinks, gone, length = 4, 23, 12
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(3, 2, 8, generator=generator)
    keys = torch.randn(length, 8, generator=generator)
    rotary = RotaryEmbedding(RopeConfig(), 8, 16, CPU)
    cached = torch.arange(length)
    text = torch.where(cached < sinks, cached, cached + gone)

    def turned(x: Tensor, positions: Tensor) -> Tensor:
        cos, sin = rotary.endless(positions)
        return rotate(x, cos[:, None], sin[:, None], True) if x.dim() == 3 else rotate(x, cos, sin, True)

    slid = SlidRotary(sinks, [gone], rotary(cached[None, -3:]))
    found = slid.queries(queries, turned(queries, text[-3:]), 0, True)
    assert found is not None
    expected = turned(queries, cached[-3:]) @ turned(keys, cached).T
    torch.testing.assert_close(found.scores(turned(keys, text)), expected, atol=1e-4, rtol=1e-4)


def test_rotations_stay_exact_however_long_the_text_is() -> None:
    rotary = RotaryEmbedding(RopeConfig(), 16, 32, CPU)
    positions = torch.tensor([[0, 31, 32, 10_000_000, 2_000_000_000]])
    cos, sin = rotary.endless(positions)
    near, _ = rotary(positions[:, :2])
    assert torch.equal(cos[:, :2], near)
    step = torch.complex(*rotary.endless(positions + 7)) * torch.complex(cos, sin).conj()
    torch.testing.assert_close(step, torch.complex(*rotary(torch.full_like(positions, 7))), atol=1e-5, rtol=0)


@torch.inference_mode()
def defined(model: DeepseekV3, ids: list[int], window: Window) -> Tensor:
    """Logits by the definition: each token rotates everything that it sees by its place in the cache."""
    hidden = model.embed_tokens(torch.tensor(ids))
    for layer in model.layers:
        attention = layer.self_attn
        assert isinstance(attention, MultiHeadLatentAttention)
        x = layer.input_layernorm(hidden)
        nope, rope = attention.qk_nope_head_dim, attention.qk_rope_head_dim
        query = attention.q_proj(x).view(len(ids), attention.num_heads, -1)
        compressed, k_rope = attention.kv_a_proj_with_mqa(x).split([attention.kv_lora_rank, rope], -1)
        up = attention.kv_b_proj(attention.kv_a_layernorm(compressed)).view(len(ids), attention.num_heads, -1)
        rows = []
        for position in range(len(ids)):
            seen = places(window, position)
            keys, at = list(seen), torch.tensor(list(seen.values()))
            q_rope = rotate(query[position, :, nope:], *model.rotary(at[-1]), attention.rope_interleave)
            turned = rotate(k_rope[keys], *model.rotary(at), attention.rope_interleave)
            scores = q_rope @ turned.T + torch.einsum(
                "hd,khd->hk", query[position, :, :nope], up[keys, :, :nope]
            )
            weights = (scores * attention.softmax_scale).softmax(-1)
            rows.append(torch.einsum("hk,khd->hd", weights, up[keys, :, nope:]).flatten())
        hidden = hidden + attention.o_proj(torch.stack(rows)[None])[0]
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden)[None])[0]
    return model.logits(model.norm(hidden))


@pytest.mark.parametrize("window", [WINDOW, WIDE_STEPS], ids=["by a block", "by two"])
@pytest.mark.parametrize("nope", [0, 16])
def test_logits_are_those_of_the_definition(tmp_path: Path, nope: int, window: Window) -> None:
    """Prompt by the chunk, then by one or several tokens a pass, through three windows."""
    model = make_model(tmp_path, nope)
    ids = prompt(1, 3 * KEPT)
    expected = defined(model, ids, window)
    pool = BlockPool(window.blocks, SIZE)
    scheduler = Scheduler(pool, scheduling(window))
    runner = ModelRunner(model, LatentPool(model.config, window.blocks, SIZE, CPU), CPU)
    half = len(ids) // 2 + 3
    sequence = Sequence(0, tuple(ids[:half]), replace(GREEDY, max_tokens=len(ids)))
    scheduler.add(sequence)
    compared = 0
    while sequence.num_cached < len(ids):
        step = scheduler.next_step()
        for chunk in step.prefill:
            logits = runner.prefill(chunk)
            scheduler.advance(sequence, chunk.end)
            if logits is not None:
                torch.testing.assert_close(logits, expected[chunk.end - 1], atol=1e-4, rtol=0)
                sequence.generated.append(ids[half])
        for chunk in step.decode:
            rows = [Row(sequence, at, ids[at]) for at in range(chunk.start, chunk.end)]
            found = runner.decode(rows)
            torch.testing.assert_close(found, expected[chunk.start : chunk.end], atol=1e-4, rtol=0)
            compared += len(rows)
            scheduler.advance(sequence, chunk.end)
            sequence.generated += ids[chunk.end : chunk.end + 1 + 6 * (chunk.end % 3 == 0)]
        assert len(sequence.table) <= window.blocks
    assert compared == len(ids) - half
    assert scheduler.preemptions == 0


@pytest.mark.parametrize("params", [GREEDY, SAMPLED])
def test_until_the_window_is_full_nothing_changes(model: DeepseekV3, params: SamplingParams) -> None:
    prompts = [prompt(seed, KEPT - 40 - seed) for seed in range(3)]
    assert ask(model, prompts, params)[0] == ask(model, prompts, params, window=None)[0]


@pytest.mark.parametrize("window", [WINDOW, WIDE_STEPS], ids=["by a block", "by two"])
def test_a_text_goes_on_in_the_blocks_of_one_window(model: DeepseekV3, window: Window) -> None:
    texts, load = ask(model, [prompt(2, 20)], replace(GREEDY, max_tokens=3 * KEPT), window, window.blocks)
    assert len(texts[0]) == 3 * KEPT
    assert load.preemptions == 0


def test_sliding_texts_are_the_same_when_blocks_are_short(model: DeepseekV3) -> None:
    prompts = [prompt(seed, 30 + 31 * seed) for seed in range(3)]
    roomy, _ = ask(model, prompts, replace(SAMPLED, max_tokens=60), blocks=80)
    tight, load = ask(model, prompts, replace(SAMPLED, max_tokens=60), blocks=2 * WINDOW.blocks)
    assert tight == roomy
    assert load.preemptions > 0


def test_a_dialogue_goes_on_from_its_last_window_though_the_middle_is_lost(model: DeepseekV3) -> None:
    """Each turn sends all that was said, four windows of it, to a server that has room for one and a half."""
    history = prompt(3, 4 * KEPT)
    blocks = WINDOW.blocks * 3 // 2
    first, second = history[: 4 * KEPT - 12], history
    fresh, _ = ask(model, [second], GREEDY)
    params = replace(GREEDY, max_tokens=1)
    _, load = ask(model, [first], params, blocks=blocks)
    assert load.prefilled < len(first) + 2 * SIZE, "asked again, all but its end is known"

    async def turns() -> tuple[list[int], int]:
        options = EngineOptions(9, 10_000, 256, (), blocks, SIZE, scheduling=scheduling(WINDOW))
        engine = Engine(ModelRunner(model, LatentPool(model.config, blocks, SIZE, CPU), CPU), options)
        engine.start()
        _ = [event async for event in engine.submit([first], [params])]
        before = engine.load.prefilled
        events = [event async for _, event in engine.submit([second], [GREEDY])]
        await engine.stop()
        return [event.id for event in events[:-1]], engine.load.prefilled - before

    text, computed = asyncio.run(turns())
    assert text == fresh[0]
    assert computed < 12 + 2 * SIZE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((Extension.NONE, 8192, None, 4096), "belongs to --extend sliding"),
        ((Extension.SLIDING, 8192, None, 100), "no multiple of 64"),
        ((Extension.SLIDING, 8192, None, 128), "too small"),
    ],
)
def test_a_window_that_cannot_be_says_why(arguments: tuple[Extension, int, None, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Lengths.of(*arguments).window(64)


def test_a_window_beyond_the_trained_length_is_refused(tmp_path: Path) -> None:
    make_oracle(tmp_path)
    with pytest.raises(ConfigError, match="--window 256 exceeds the model's 128 positions"):
        load_model(tmp_path, 256, CPU, torch.float32, extension=Extension.SLIDING)


def test_a_chat_longer_than_the_window_is_answered(tiny_folder: Path) -> None:
    arguments = ("--model", str(tiny_folder), "--extend", "sliding", "--window", "192")
    with ServerProcess(*arguments, "--cache-memory", "0.01") as server:
        client = server.client()
        long = "All work and no play makes Jack a dull boy. " * 50
        answer = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": long}], max_tokens=220, temperature=0
        )
        assert answer.usage is not None
        assert answer.usage.prompt_tokens > 2 * 192
        assert answer.usage.completion_tokens > 192 or answer.choices[0].finish_reason == "stop"

"""Dual chunk attention against its definition, and YaRN on every kind of frequencies."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from local_backend.errors import ConfigError
from local_backend.model.config import DualChunk, RopeConfig
from local_backend.model.dual_chunk import ChunkRotary
from local_backend.model.long_context import Extension, extended
from local_backend.model.rope import RotaryEmbedding, attention_scale, inverse_frequencies, rotate
from local_backend.weights.load import load_config, load_model
from tests.local_backend.conftest import make_oracle
from tests.local_backend.oracle import run

CPU = torch.device("cpu")
DUAL = DualChunk(chunk_length=12, trained_length=16)


def distance(query: int, key: int) -> int:
    """The relative position that the paper's matrix M gives (arXiv 2402.17463, section 3)."""
    chunk, last = DUAL.chunk_length, DUAL.trained_length - 1
    apart = query // chunk - key // chunk
    if apart == 0:
        return query % chunk - key % chunk
    if apart == 1:
        return min(query % chunk + chunk, last) - key % chunk
    return last - key % chunk


def test_distances_are_true_nearby_and_never_beyond_the_trained_length() -> None:
    window = DUAL.trained_length - DUAL.chunk_length
    for query in range(60):
        assert all(0 <= distance(query, key) < DUAL.trained_length for key in range(query + 1))
        nearby = range(max(query - window + 1, 0), query + 1)
        assert [distance(query, key) for key in nearby] == [query - key for key in nearby]


@pytest.mark.parametrize(("start", "tokens"), [(0, 50), (0, 5), (11, 2), (23, 14), (47, 1), (36, 12)])
def test_scores_are_those_of_the_definition(start: int, tokens: int) -> None:
    generator = torch.Generator().manual_seed(start)
    queries = torch.randn(tokens, 3, 8, generator=generator)
    keys = torch.randn(start + tokens, 8, generator=generator)
    rotary = RotaryEmbedding(RopeConfig(), 8, DUAL.trained_length, CPU)
    positions = torch.arange(start, start + tokens)[None]
    chunked = ChunkRotary.of(rotary, positions, DUAL)
    cos, sin = rotary(torch.arange(start + tokens) % DUAL.chunk_length)
    own = rotate(queries, *(part[0, :, None] for part in chunked.keys), True)
    found = chunked.queries(queries, own, 0, True).scores(rotate(keys, cos, sin, True))
    assert found.shape == (tokens, 3, start + tokens)
    for index in range(tokens):
        for key in range(start + index + 1):
            cos, sin = rotary(torch.tensor(distance(start + index, key)))
            turned = rotate(queries[index], cos, sin, True)
            straight = rotate(keys[key], *rotary(torch.tensor(0)), True)
            torch.testing.assert_close(found[index, :, key], turned @ straight, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("nope", [0, 16])
@torch.inference_mode()
def test_dual_chunks_change_nothing_within_a_chunk_and_chunking_changes_nothing(
    nope: int, tmp_path: Path
) -> None:
    make_oracle(tmp_path, max_position_embeddings=16, qk_nope_head_dim=nope)
    ids = torch.randint(0, 256, (2, 40), generator=torch.Generator().manual_seed(1))
    plain = load_model(tmp_path, 16, CPU, torch.float32)
    long = load_model(tmp_path, 40, CPU, torch.float32, extension=Extension.DUAL_CHUNK)
    whole = run(long, ids, [40], absorbed=False)
    torch.testing.assert_close(
        whole[:, :12], run(plain, ids[:, :12], [12], absorbed=False), atol=1e-5, rtol=0
    )
    for chunks in ([7, 20, 13], [16] + [1] * 24):
        torch.testing.assert_close(run(long, ids, chunks, absorbed=True), whole, atol=1e-5, rtol=0)


def test_a_longer_context_needs_an_extension(tmp_path: Path) -> None:
    make_oracle(tmp_path)
    config = load_config(tmp_path)
    assert extended(config, Extension.YARN, 128) is config
    with pytest.raises(ConfigError, match="--extend yarn"):
        extended(config, Extension.NONE, 129)
    dual = extended(config, Extension.DUAL_CHUNK, 512)
    assert (dual.dual_chunk, dual.max_position_embeddings) == (DualChunk(96, 128), 512)


def test_yarn_on_plain_frequencies_is_that_of_the_published_config(tmp_path: Path) -> None:
    make_oracle(tmp_path)
    config = extended(load_config(tmp_path), Extension.YARN, 512)
    assert (config.rope.rope_type, config.rope.factor) == ("yarn", 4.0)
    assert config.rope.original_max_position_embeddings == 128
    assert config.softmax_scale == pytest.approx((0.1 * math.log(4) + 1) ** 2 / math.sqrt(32))
    further = extended(replace(config), Extension.YARN, 1024)
    assert further.rope.factor == 8.0


def test_yarn_on_given_frequencies_slows_the_slow_ones_alone(tmp_path: Path) -> None:
    """As the bundled model has them: each frequency given by a factor on the standard one."""
    dim, trained = 64, 8192
    given = RopeConfig("longrope", 1e5, 1.0, 1.0, trained, short_factor=(1.0,) * 32, long_factor=(1.0,) * 32)
    make_oracle(tmp_path)
    config = replace(load_config(tmp_path), rope=given, qk_rope_head_dim=dim, max_position_embeddings=trained)
    rope = extended(config, Extension.YARN, 2 * trained).rope
    before, after = (inverse_frequencies(each, dim, 2 * trained) for each in (given, rope))
    turns = trained * before / (2 * math.pi)
    assert torch.allclose(after[turns > 32], before[turns > 32])
    assert torch.allclose(after[turns < 1], before[turns < 1] / 2)
    assert bool((after.diff() < 0).all())
    assert attention_scale(rope) == pytest.approx(0.1 * math.log(2) + 1)
    published = replace(given, rope_type="yarn", factor=2.0, attention_factor=None)
    torch.testing.assert_close(after, inverse_frequencies(published, dim, 2 * trained), rtol=0.06, atol=0)

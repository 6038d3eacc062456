from pathlib import Path
from typing import Any

import pytest
import torch

from local_backend.engine.cache import LatentCache
from local_backend.model.model import DeepseekV3
from local_backend.weights.load import load_model
from tests.local_backend.conftest import make_oracle

CPU = torch.device("cpu")
LENGTH = 24
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 1.0,
    "mscale_all_dim": 0.7,
    "original_max_position_embeddings": 16,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "groups": {"n_group": 4, "topk_group": 2},
    "unnormalised": {"norm_topk_prob": False},
    "all experts active": {"num_experts_per_tok": 8},
    "two shared experts": {"n_shared_experts": 2, "num_experts_per_tok": 8},
    "query latent": {"q_lora_rank": 24, "attention_bias": True},
    "first layer dense": {"first_k_dense_replace": 1},
    "no nope part": {"qk_nope_head_dim": 0},
    "half-split rope": {"rope_interleave": False},
    "tied": {"tie_word_embeddings": True},
    "yarn": {"rope_parameters": YARN},
    "yarn without all_dim": {"rope_parameters": {**YARN, "mscale_all_dim": 0.0}},
}


def run(model: DeepseekV3, ids: torch.Tensor, chunks: list[int], *, absorbed: bool) -> torch.Tensor:
    """Logits [batch, tokens, vocab], with the tokens fed in chunks of the given sizes."""
    cache = LatentCache(model.config, len(ids), LENGTH, CPU, torch.float32)
    view = cache.view(range(len(ids)))
    logits, start = [], 0
    for size in chunks:
        end = start + size
        positions = torch.arange(start, end).expand(len(ids), -1)
        hidden = model(ids[:, start:end], positions, end, view, absorbed)
        logits.append(model.logits(hidden))
        start = end
    return torch.cat(logits, dim=1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_agrees_with_transformers_in_prefill_and_decode(variant: str, tmp_path: Path) -> None:
    oracle = make_oracle(tmp_path, **VARIANTS[variant])
    model = load_model(tmp_path, 128, CPU, torch.float32)
    ids = torch.randint(0, 256, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = oracle(ids).logits
        assert expected.abs().max() > 0.1
        for chunks in ([LENGTH], [10, 9, 5], [8] + [1] * (LENGTH - 8)):
            for absorbed in (False, True):
                found = run(model, ids, chunks, absorbed=absorbed)
                torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_sequence_in_a_batch_is_as_alone_whatever_slots_it_has(tmp_path: Path) -> None:
    make_oracle(tmp_path)
    model = load_model(tmp_path, 128, CPU, torch.float32)
    ids = torch.randint(0, 256, (3, LENGTH), generator=torch.Generator().manual_seed(2))
    lengths = [5, 17, 11]
    with torch.inference_mode():
        alone = run(model, ids, [LENGTH], absorbed=False)
        for slots in ([0, 1, 2], [4, 1, 3]):
            cache = LatentCache(model.config, 5, LENGTH, CPU, torch.float32)
            for row, slot, length in zip(ids, slots, lengths, strict=True):
                model(
                    row[None, :length], torch.arange(length)[None], length, cache.view([slot]), absorbed=False
                )
            positions = torch.tensor(lengths)[:, None]
            hidden = model(
                ids.gather(1, positions), positions, max(lengths) + 1, cache.view(slots), absorbed=True
            )
            expected = alone[torch.arange(3), torch.tensor(lengths)]
            torch.testing.assert_close(model.logits(hidden)[:, 0], expected, atol=1e-5, rtol=0)

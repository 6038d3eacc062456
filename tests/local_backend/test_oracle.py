from pathlib import Path
from typing import Any

import pytest
import torch

from local_backend.engine.latents import Extent, LatentPool
from local_backend.weights.load import load_model
from tests.local_backend.conftest import make_oracle
from tests.local_backend.oracle import LENGTH, assert_agrees, run

CPU = torch.device("cpu")
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


@pytest.mark.parametrize("variant", VARIANTS)
def test_agrees_with_transformers_in_prefill_and_decode(variant: str, tmp_path: Path) -> None:
    oracle = make_oracle(tmp_path, **VARIANTS[variant])
    model = load_model(tmp_path, 128, CPU, torch.float32)
    assert_agrees(model, oracle)


def test_a_sequence_in_a_batch_is_as_alone_wherever_its_blocks_lie(tmp_path: Path) -> None:
    make_oracle(tmp_path)
    model = load_model(tmp_path, 128, CPU, torch.float32)
    ids = torch.randint(0, 256, (3, LENGTH), generator=torch.Generator().manual_seed(2))
    lengths = [5, 17, 11]
    tables = [[0, 1, 2], [8, 3, 5], [7, 6]]
    with torch.inference_mode():
        alone = run(model, ids, [LENGTH], absorbed=False)
        pool = LatentPool(model.config, 9, 8, CPU)
        for row, table, length in zip(ids, tables, lengths, strict=True):
            view = pool.view([Extent(table, 0, length)])
            model(row[None, :length], torch.arange(length)[None], view, absorbed=False)
        positions = torch.tensor(lengths)[:, None]
        extents = [Extent(table, length, length + 1) for table, length in zip(tables, lengths, strict=True)]
        hidden = model(ids.gather(1, positions), positions, pool.view(extents), absorbed=True)
        expected = alone[torch.arange(3), torch.tensor(lengths)]
        torch.testing.assert_close(model.logits(hidden)[:, 0], expected, atol=1e-5, rtol=0)

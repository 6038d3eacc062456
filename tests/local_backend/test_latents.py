"""What the cache's memory gives back, wherever blocks lie and however latents are kept."""

from pathlib import Path

import pytest
import torch

from local_backend.engine.latents import Extent, LatentFormat, LatentPool
from local_backend.weights.load import load_config, load_model
from tests.local_backend.conftest import make_oracle

CPU = torch.device("cpu")


def test_positions_are_read_in_order_from_scattered_and_neighbouring_blocks(tmp_path: Path) -> None:
    make_oracle(tmp_path)
    config = load_config(tmp_path)
    pool = LatentPool(config, 8, 4, CPU)
    written = torch.randn(2, 7, config.latent_dim)
    view = pool.view([Extent([6, 2], 0, 7), Extent([3, 4], 0, 7)])
    view.write(1, written)
    for row in range(2):
        assert torch.equal(view.read(1, row), written[row])
    later = pool.view([Extent([6, 2], 7, 8), Extent([3, 4], 7, 8)])
    later.write(1, torch.ones(2, 1, config.latent_dim))
    for row in range(2):
        assert torch.equal(later.read(1, row)[:7], written[row])
        assert torch.equal(later.read(1, row)[7], torch.ones(config.latent_dim))
    assert not view.read(0, 0).any()


@pytest.mark.parametrize(("kept", "error"), [(torch.bfloat16, 0.01), (torch.uint8, 0.05)])
def test_smaller_latents_change_logits_a_little(tmp_path: Path, kept: torch.dtype, error: float) -> None:
    make_oracle(tmp_path, num_experts_per_tok=8)
    model = load_model(tmp_path, 64, CPU, torch.float32)
    ids = torch.randint(0, 256, (1, 30), generator=torch.Generator().manual_seed(1))

    @torch.inference_mode()
    def logits(form: LatentFormat) -> torch.Tensor:
        pool = LatentPool(model.config, 1, 64, CPU, form)
        return model.logits(model(ids, torch.arange(30)[None], pool.rows([0], 0, 30)))

    exact, rounded = logits(LatentFormat()), logits(LatentFormat(kept=kept))
    assert 0 < float((rounded - exact).norm() / exact.norm()) < error
    assert LatentFormat(kept).block_bytes(model.config, 64) < LatentFormat().block_bytes(model.config, 64)

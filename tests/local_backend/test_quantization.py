"""Whole models with rounded weights stay near the exact ones, and take the memory that they should."""

from pathlib import Path

import pytest
import torch

from local_backend.kernels.cpu_int4 import Int4Projection, has_int4
from local_backend.kernels.cpu_int8 import Int8Projection
from local_backend.kernels.expert_loop import ExpertLoop
from local_backend.kernels.fp8_projection import Fp8GroupedProjection, Fp8Projection
from local_backend.weights.load import load_model
from local_backend.weights.repack import Quantization
from tests.local_backend.conftest import make_oracle
from tests.local_backend.oracle import run

CPU = torch.device("cpu")
IDS = torch.randint(0, 256, (2, 20), generator=torch.Generator().manual_seed(1))
LIMITS = {Quantization.INT8: 0.05, Quantization.INT4: 0.5, Quantization.FP8: 0.15}
FORMS = {
    Quantization.INT8: (Int8Projection, ExpertLoop),
    Quantization.INT4: (Int4Projection, ExpertLoop),
    Quantization.FP8: (Fp8Projection, Fp8GroupedProjection),
}


@pytest.mark.parametrize("quantization", LIMITS)
@pytest.mark.parametrize("active", [3, 8])
@torch.inference_mode()
def test_a_model_with_rounded_weights_is_near_the_exact_one(
    quantization: Quantization, active: int, tmp_path: Path
) -> None:
    if quantization is Quantization.INT4 and not has_int4():
        pytest.skip("this CPU has no vectorised int4 product")
    make_oracle(tmp_path, hidden_size=128, num_experts_per_tok=active)
    exact = run(load_model(tmp_path, 128, CPU, torch.float32), IDS, [20], absorbed=False)
    model = load_model(tmp_path, 128, CPU, torch.float32, quantization=quantization)
    projection, grouped = FORMS[quantization]
    forms = [type(module) for module in model.layers.modules()]
    assert forms.count(projection) >= 5
    assert (grouped in forms) == (active < 8)
    for chunks in ([20], [10] + [1] * 10):
        rounded = run(model, IDS, chunks, absorbed=False)
        # With few experts active, a near tie may choose another expert, which no bound on rounding holds.
        allowed = LIMITS[quantization] * (3 if active < 8 else 1)
        assert 1e-3 < float((rounded - exact).norm() / exact.norm()) < allowed

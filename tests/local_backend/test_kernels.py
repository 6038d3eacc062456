import pytest
import torch

from local_backend.kernels.cpu_head import CpuHead
from local_backend.kernels.cpu_int4 import CpuProjection, has_int4, pack_exactly


def grid_matrix(rows: int, columns: int) -> torch.Tensor:
    """Weights on Q4_1's grid: 16 levels a group of 32, both ends taken."""
    generator = torch.Generator().manual_seed(rows)
    codes = torch.randint(0, 16, (rows, columns // 32, 32), generator=generator)
    codes[..., 0], codes[..., 1] = 0, 15
    scales = torch.rand(rows, columns // 32, 1, generator=generator).half().float() + 0.01
    minima = torch.randn(rows, columns // 32, 1, generator=generator).half().float()
    return (codes * scales + minima).flatten(1)


def test_a_matrix_off_the_grid_is_not_packed() -> None:
    assert pack_exactly(torch.randn(32, 64)) is None
    assert pack_exactly(grid_matrix(32, 64)[:, :48]) is None


@pytest.mark.skipif(not has_int4(), reason="this CPU has no vectorised int4 product")
@pytest.mark.parametrize("rows", [1, 3, 16, 17])
@pytest.mark.parametrize("outputs", [32, 37])
def test_packed_and_plain_products_agree(rows: int, outputs: int) -> None:
    weight, bias = grid_matrix(outputs, 96), torch.randn(outputs)
    projection = CpuProjection(weight, bias)
    assert projection.packed is not None
    x = torch.randn(2, rows, 96, generator=torch.Generator().manual_seed(5))
    expected = x @ weight.T
    found = projection(x) - bias
    assert found.shape == expected.shape
    assert float((found - expected).norm() / expected.norm()) < 0.01


def test_the_head_decides_near_ties_exactly() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1000, 64, generator=generator)
    hidden = torch.randn(5, 64, generator=generator)
    rivals = weight.clone()
    winners = (hidden @ weight.T).argmax(-1)
    rivals[(winners + 1) % 1000] = weight[winners] * 1.0005
    expected = hidden @ rivals.T
    found = CpuHead(rivals)(hidden)
    assert torch.equal(found.argmax(-1), expected.argmax(-1))
    torch.testing.assert_close(found.topk(20).values, expected.topk(20).values, atol=1e-4, rtol=0)

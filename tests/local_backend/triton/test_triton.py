"""The Triton kernels in Triton's interpreter, on a CPU; `make test-triton` makes what they need."""

import os

import pytest
import torch

os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("triton", reason="Triton is not installed; run `make test-triton`")

from local_backend.kernels import fp8, fp8_grouped, triton_fp8, triton_grouped, triton_mla
from local_backend.kernels.mla_decode import Pages, decode_reference

# Triton's interpreter takes scalars from one-element arrays.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim:DeprecationWarning")


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_close(found: torch.Tensor, expected: torch.Tensor, relative: float = 1e-5) -> None:
    assert found.shape == expected.shape
    assert float((found - expected).norm() / expected.norm()) < relative


@pytest.mark.parametrize(("m", "n", "k"), [(1, 128, 128), (40, 200, 576), (130, 96, 200), (17, 130, 300)])
def test_the_fp8_product_is_that_of_the_plain_form(m: int, n: int, k: int) -> None:
    x = randn(m, k) * torch.logspace(-2, 2, m)[:, None]
    w = randn(n, k, seed=1) * torch.logspace(-2, 2, k)
    operands = *fp8.quantize_tiles(x), *fp8.quantize_blocks(w)
    assert_close(triton_fp8.gemm(*operands), fp8.gemm(*operands))


COUNTS = [[3, 0, 30, 7], [0, 0, 0, 5], [16, 16, 16, 16], [1, 140, 0, 2]]


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize(("n", "k"), [(128, 256), (200, 300)])
def test_the_contiguous_product_is_that_of_the_plain_form(counts: list[int], n: int, k: int) -> None:
    x, w = randn(sum(counts), k), randn(4, n, k, seed=1) * torch.tensor([1, 2, 5, 9])[:, None, None]
    offsets = torch.tensor(counts).cumsum(0).to(torch.int32)
    operands = *fp8.quantize_tiles(x), *fp8.quantize_blocks(w), offsets
    assert_close(triton_grouped.contiguous(*operands), fp8_grouped.contiguous_reference(*operands))


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize(("n", "k"), [(128, 256), (200, 300)])
def test_the_masked_product_is_that_of_the_plain_form(counts: list[int], n: int, k: int) -> None:
    x, w = randn(4, max(counts), k), randn(4, n, k, seed=1) * torch.tensor([1, 2, 5, 9])[:, None, None]
    operands = *fp8.quantize_tiles(x), *fp8.quantize_blocks(w), torch.tensor(counts, dtype=torch.int32)
    assert_close(triton_grouped.masked(*operands), fp8_grouped.masked_reference(*operands))


@pytest.mark.parametrize(
    ("heads", "rank", "rope", "size", "lengths"),
    [
        (4, 32, 16, 16, [1, 16, 37]),
        (20, 196, 192, 8, [5, 33]),
        (16, 64, 16, 64, [1100, 64, 2000]),
    ],
)
def test_decoding_over_pages_is_that_of_the_plain_form(
    heads: int, rank: int, rope: int, size: int, lengths: list[int]
) -> None:
    width = -(-max(lengths) // size)
    blocks = len(lengths) * width + 3
    pool = randn(blocks, size, rank + rope)
    order = torch.randperm(blocks, generator=torch.Generator().manual_seed(2))
    tables = order[: len(lengths) * width].view(len(lengths), width).to(torch.int32)
    # What lies beyond a sequence's end must not matter.
    for table, length in zip(tables, lengths, strict=True):
        for place in range(length, width * size):
            pool[table[place // size], place % size] = 1e4
    query = randn(len(lengths), heads, rank + rope, seed=3)
    pages = Pages(pool, tables, torch.tensor(lengths, dtype=torch.int32))
    arguments = query, pages, rank, (rank + rope) ** -0.5
    assert_close(triton_mla.decode(*arguments), decode_reference(*arguments))

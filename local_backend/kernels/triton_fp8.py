"""Blockwise FP8 product in Triton with two-level accumulation (DeepSeek-V3, arXiv 2412.19437, section 3.3).

A program computes one tile of the output: each step multiplies 128 elements on the tensor cores and adds the
scaled partial sum in float32. Rows, columns and the last step may be ragged.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from local_backend.kernels.fp8 import TILE

_BLOCK_N = 128


@triton.jit
def _gemm_kernel(
    a, a_scales, b, b_scales, c, m, n, k,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    steps = tl.cdiv(k, BLOCK_K)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for step in range(steps):
        inner = step * BLOCK_K + tl.arange(0, BLOCK_K)
        a_tile = tl.load(
            a + rows[:, None] * k + inner[None, :],
            mask=(rows[:, None] < m) & (inner[None, :] < k),
            other=0.0,
        )
        b_tile = tl.load(
            b + columns[None, :] * k + inner[:, None],
            mask=(columns[None, :] < n) & (inner[:, None] < k),
            other=0.0,
        )
        a_scale = tl.load(a_scales + rows * steps + step, mask=rows < m, other=0.0)
        b_scale = tl.load(b_scales + columns // BLOCK_K * steps + step, mask=columns < n, other=0.0)
        total += tl.dot(a_tile, b_tile) * a_scale[:, None] * b_scale[None, :]
    tl.store(
        c + rows[:, None] * n + columns[None, :],
        total.to(c.dtype.element_ty),
        mask=(rows[:, None] < m) & (columns[None, :] < n),
    )


def gemm(a: Tensor, a_scales: Tensor, b: Tensor, b_scales: Tensor) -> Tensor:
    """Tiles a [m, k] times the transpose of blocks b [n, k] -> float32 [m, n]."""
    rows, columns = len(a), len(b)
    output = torch.empty(rows, columns, dtype=torch.float32, device=a.device)
    block_m = tile_rows(rows)
    grid = (triton.cdiv(rows, block_m), triton.cdiv(columns, _BLOCK_N))
    _gemm_kernel[grid](
        a.contiguous(), a_scales.contiguous(), b.contiguous(), b_scales.contiguous(), output,
        rows, columns, a.shape[1],
        BLOCK_M=block_m, BLOCK_N=_BLOCK_N, BLOCK_K=TILE, num_warps=8 if block_m == TILE else 4,
    )  # fmt: skip
    return output


def tile_rows(rows: int) -> int:
    """Rows of a tile: few for decode, where a larger tile would only multiply zeros."""
    return next((size for size in (16, 32, 64) if rows <= size), TILE)

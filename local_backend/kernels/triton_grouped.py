"""Grouped blockwise FP8 product in Triton, contiguous and masked.

Both layouts become a table of row tiles, each with its expert and its end, made on the device so that nothing
waits for it; a program of the kernel computes one of them, and those without rows do nothing.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

from local_backend.kernels.fp8 import TILE
from local_backend.kernels.triton_fp8 import tile_rows

_BLOCK_N = 128


@triton.jit
def _grouped_kernel(
    a, a_scales, b, b_scales, c, experts, starts, ends, n, k,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    start = tl.load(starts + tile)
    end = tl.load(ends + tile)
    if start < end:
        expert = tl.load(experts + tile).to(tl.int64)
        rows = start + tl.arange(0, BLOCK_M).to(tl.int64)
        columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
        steps = tl.cdiv(k, BLOCK_K)
        weight = b + expert * n * k
        weight_scales = b_scales + expert * tl.cdiv(n, BLOCK_K) * steps
        total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
        for step in range(steps):
            inner = step * BLOCK_K + tl.arange(0, BLOCK_K)
            a_tile = tl.load(
                a + rows[:, None] * k + inner[None, :],
                mask=(rows[:, None] < end) & (inner[None, :] < k),
                other=0.0,
            )
            b_tile = tl.load(
                weight + columns[None, :] * k + inner[:, None],
                mask=(columns[None, :] < n) & (inner[:, None] < k),
                other=0.0,
            )
            a_scale = tl.load(a_scales + rows * steps + step, mask=rows < end, other=0.0)
            b_scale = tl.load(weight_scales + columns // BLOCK_K * steps + step, mask=columns < n, other=0.0)
            total += tl.dot(a_tile, b_tile) * a_scale[:, None] * b_scale[None, :]
        tl.store(
            c + rows[:, None] * n + columns[None, :],
            total.to(c.dtype.element_ty),
            mask=(rows[:, None] < end) & (columns[None, :] < n),
        )


def contiguous(a: Tensor, a_scales: Tensor, b: Tensor, b_scales: Tensor, offsets: Tensor) -> Tensor:
    """Tiles a [rows, k] sorted by expert, blocks b [experts, n, k] -> float32 [rows, n]."""
    experts = len(b)
    block_m = tile_rows(-(-len(a) // experts))
    starts = functional.pad(offsets[:-1], (1, 0))
    tiles = (offsets - starts + block_m - 1) // block_m
    ends = tiles.cumsum(0)
    # As many as there can be: each expert's last tile may be ragged.
    index = torch.arange(-(-len(a) // block_m) + experts, device=a.device)
    expert = torch.searchsorted(ends, index, right=True).clamp(max=experts - 1)
    start = starts[expert] + (index - (ends - tiles)[expert]) * block_m
    return _launch((a, a_scales, b, b_scales), (expert, start, offsets[expert]), block_m)


def masked(a: Tensor, a_scales: Tensor, b: Tensor, b_scales: Tensor, counts: Tensor) -> Tensor:
    """Tiles a [experts, capacity, k], blocks b [experts, n, k] -> float32 [experts, capacity, n]."""
    experts, capacity = a.shape[:2]
    block_m = tile_rows(capacity)
    tiles = triton.cdiv(capacity, block_m)
    expert = torch.arange(experts, device=a.device).repeat_interleave(tiles)
    first = torch.arange(tiles, device=a.device).repeat(experts) * block_m
    start, end = expert * capacity + first, expert * capacity + counts[expert]
    flat = a.flatten(0, 1), a_scales.flatten(0, 1), b, b_scales
    return _launch(flat, (expert, start, end), block_m).view(experts, capacity, -1)


def _launch(
    operands: tuple[Tensor, Tensor, Tensor, Tensor], table: tuple[Tensor, Tensor, Tensor], block_m: int
) -> Tensor:
    a, b = operands[0], operands[2]
    output = torch.zeros(len(a), b.shape[1], dtype=torch.float32, device=a.device)
    grid = (len(table[0]), triton.cdiv(b.shape[1], _BLOCK_N))
    _grouped_kernel[grid](
        *(each.contiguous() for each in operands),
        output,
        *(each.to(torch.int32) for each in table),
        b.shape[1],
        a.shape[1],
        BLOCK_M=block_m,
        BLOCK_N=_BLOCK_N,
        BLOCK_K=TILE,
        num_warps=8 if block_m == TILE else 4,
    )
    return output

"""Eight-bit floats with one scale a block, and their product with two-level accumulation.

DeepSeek-V3 (arXiv 2412.19437, section 3.3) scales activations in tiles of 1x128 and weights in blocks of
128x128, so that an outlier costs precision only near itself, and adds the partial sums of every 128 elements
in float32, because Hopper's tensor cores keep only about 14 bits while they accumulate. Here is the same
arithmetic in plain torch for any device; last tiles and blocks may be ragged.
"""

import torch
from torch import Tensor
from torch.nn import functional

TILE = 128
E4M3 = torch.float8_e4m3fn
_MAX = torch.finfo(E4M3).max

# Keeps the scale of an all-zero tile from being zero.
_SMALLEST = 1e-12


def quantize_tiles(x: Tensor) -> tuple[Tensor, Tensor]:
    """X [.., k] as e4m3 [.., k] and float32 scales [.., ceil(k / 128)]."""
    width = x.shape[-1]
    tiles = torch.unflatten(functional.pad(x.float(), (0, -width % TILE)), -1, (-1, TILE))
    scales = tiles.abs().amax(-1).clamp_min(_SMALLEST) / _MAX
    codes = (tiles / scales[..., None]).flatten(-2)[..., :width]
    return codes.to(E4M3), scales


def quantize_blocks(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weight [.., n, k] as e4m3 [.., n, k] and float32 scales [.., ceil(n / 128), ceil(k / 128)]."""
    rows, width = weight.shape[-2:]
    padded = functional.pad(weight.float(), (0, -width % TILE, 0, -rows % TILE))
    blocks = torch.unflatten(torch.unflatten(padded, -1, (-1, TILE)), -3, (-1, TILE))
    scales = blocks.abs().amax((-3, -1)).clamp_min(_SMALLEST) / _MAX
    codes = (blocks / scales[..., :, None, :, None]).flatten(-2).flatten(-3, -2)
    return codes[..., :rows, :width].to(E4M3), scales


def dequantize_tiles(codes: Tensor, scales: Tensor) -> Tensor:
    """The float32 values that `quantize_tiles` stands for."""
    return codes.float() * scales.repeat_interleave(TILE, -1)[..., : codes.shape[-1]]


def dequantize_blocks(codes: Tensor, scales: Tensor, block: tuple[int, int] = (TILE, TILE)) -> Tensor:
    """The float32 values of a matrix [n, k] with one scale a block; ValueError when their shapes differ."""
    expected = tuple(-(-size // step) for size, step in zip(codes.shape, block, strict=True))
    if tuple(scales.shape) != expected:
        raise ValueError(f"scales of shape {tuple(scales.shape)} do not fit a matrix of {tuple(codes.shape)}")
    rows = scales.repeat_interleave(block[0], 0)[: codes.shape[0]]
    return codes.float() * rows.repeat_interleave(block[1], 1)[:, : codes.shape[1]]


def gemm(a: Tensor, a_scales: Tensor, b: Tensor, b_scales: Tensor) -> Tensor:
    """Tiles a [m, k] times the transpose of blocks b [n, k] -> float32 [m, n].

    The first level is the product of one tile, the second adds it, scaled, in float32.
    """
    output = a.new_zeros(len(a), len(b), dtype=torch.float32)
    columns = b_scales.repeat_interleave(TILE, 0)[: len(b)]
    for index, start in enumerate(range(0, a.shape[1], TILE)):
        tile = slice(start, start + TILE)
        partial = a[:, tile].float() @ b[:, tile].float().T
        output += partial * a_scales[:, index, None] * columns[:, index]
    return output

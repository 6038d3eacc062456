"""FP8 products of the experts of a layer, in the two layouts of `kernels.grouped`.

Activations a in tiles, weights b [experts, n, k] in blocks; scales as in `kernels.fp8`. `rows` are the
offsets of the contiguous layout or the counts of the masked one.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from local_backend.kernels import fp8
from local_backend.kernels.dispatch import Kernel, capabilities, fp8_grouped_gemm
from local_backend.kernels.verify import agrees

GroupedGemm = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""a, its scales, b, its scales, rows -> float32 or bfloat16."""


def contiguous(x: Tensor, codes: Tensor, scales: Tensor, offsets: Tensor) -> Tensor:
    """X [rows, k], sorted by expert -> [rows, n]."""
    gemm = _kernels(x.device, *codes.shape[1:])[0]
    return gemm(*fp8.quantize_tiles(x), codes, scales, offsets).to(x.dtype)


def masked(x: Tensor, codes: Tensor, scales: Tensor, counts: Tensor) -> Tensor:
    """X [experts, capacity, k] -> [experts, capacity, n]; rows beyond a count hold anything."""
    gemm = _kernels(x.device, *codes.shape[1:])[1]
    return gemm(*fp8.quantize_tiles(x), codes, scales, counts).to(x.dtype)


def contiguous_reference(a: Tensor, a_scales: Tensor, b: Tensor, b_scales: Tensor, rows: Tensor) -> Tensor:
    """The definition: one product an expert, float32 [rows, n]."""
    output = a_scales.new_zeros(len(a), b.shape[1])
    start = 0
    for expert, end in enumerate(rows.tolist()):
        own = slice(start, end)
        output[own] = fp8.gemm(a[own], a_scales[own], b[expert], b_scales[expert])
        start = end
    return output


def masked_reference(a: Tensor, a_scales: Tensor, b: Tensor, b_scales: Tensor, rows: Tensor) -> Tensor:
    """The definition, float32 [experts, capacity, n], zero beyond each count."""
    output = a_scales.new_zeros(*a.shape[:2], b.shape[1])
    for expert, count in enumerate(rows.tolist()):
        own = (expert, slice(0, count))
        output[own] = fp8.gemm(a[own], a_scales[own], b[expert], b_scales[expert])
    return output


@cache
def _kernels(device: torch.device, outer: int, inner: int) -> tuple[GroupedGemm, GroupedGemm]:
    kernel = fp8_grouped_gemm(capabilities(device), inner, outer)
    if kernel is Kernel.REFERENCE:
        return contiguous_reference, masked_reference
    return _verified(kernel, device)


@cache
def _verified(kernel: Kernel, device: torch.device) -> tuple[GroupedGemm, GroupedGemm]:
    """Imported when chosen, because each module needs what only some machines have."""
    chosen: tuple[GroupedGemm, GroupedGemm]
    if kernel is Kernel.TRITON:
        from local_backend.kernels import triton_grouped  # noqa: PLC0415

        chosen = triton_grouped.contiguous, triton_grouped.masked
    else:
        from local_backend.kernels import hopper  # noqa: PLC0415

        chosen = hopper.deep_gemm_contiguous, hopper.deep_gemm_masked
    by_expert, by_block = _trials(device)
    expected = contiguous_reference(*by_expert)
    blocks = masked_reference(*by_block)
    if agrees(f"{kernel} contiguous", lambda: chosen[0](*by_expert), expected) and agrees(
        f"{kernel} masked", lambda: chosen[1](*by_block).where(blocks != 0, 0), blocks
    ):
        return chosen
    return contiguous_reference, masked_reference


def _trials(device: torch.device) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Operands of both layouts with uneven experts, one of them without a row."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(40, 2 * fp8.TILE, generator=generator).to(device)
    b = torch.randn(4, 2 * fp8.TILE, 2 * fp8.TILE, generator=generator).to(device)
    b *= torch.linspace(1, 4, 4, device=device)[:, None, None]
    b[:, : fp8.TILE, fp8.TILE :] *= 3
    offsets = torch.tensor([3, 3, 30, 40], dtype=torch.int32, device=device)
    counts = torch.tensor([3, 0, 10, 7], dtype=torch.int32, device=device)
    tiles, scales = fp8.quantize_tiles(a)
    blocks = tiles.view(4, 10, -1), scales.view(4, 10, -1)
    weights = fp8.quantize_blocks(b)
    return (tiles, scales, *weights, offsets), (*blocks, *weights, counts)

"""FP8 products by whichever kernel the device has: deep_gemm, torch's scaled_mm, Triton or plain torch."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from local_backend.kernels import fp8
from local_backend.kernels.dispatch import Kernel, capabilities, fp8_gemm
from local_backend.kernels.verify import agrees

Gemm = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""Tiles a [m, k] and their scales, blocks b [n, k] and their scales -> [m, n], float32 or bfloat16."""


def linear(x: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    """X [.., k] times the transpose of an FP8 matrix [n, k] -> [.., n], with activations rounded to FP8."""
    gemm = _gemm(x.device, *codes.shape)
    tiles, tile_scales = fp8.quantize_tiles(x.flatten(0, -2))
    return gemm(tiles, tile_scales, codes, scales).to(x.dtype).view(*x.shape[:-1], -1)


def trial(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Operands with scales that differ widely: with equal ones a wrong layout would go unseen."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(20, 2 * fp8.TILE, generator=generator).to(device)
    b = torch.randn(3 * fp8.TILE, 2 * fp8.TILE, generator=generator).to(device)
    a *= torch.linspace(1, 4, len(a), device=device)[:, None]
    b *= (
        torch.tensor([[1, 2], [5, 3], [2, 7]], device=device)
        .repeat_interleave(fp8.TILE, 0)
        .repeat_interleave(fp8.TILE, 1)
    )
    return *fp8.quantize_tiles(a), *fp8.quantize_blocks(b)


@cache
def _gemm(device: torch.device, outer: int, inner: int) -> Gemm:
    kernel = fp8_gemm(capabilities(device), inner, outer)
    return fp8.gemm if kernel is Kernel.REFERENCE else _verified(kernel, device)


@cache
def _verified(kernel: Kernel, device: torch.device) -> Gemm:
    gemm, operands = _load(kernel), trial(device)
    return gemm if agrees(f"{kernel} FP8", lambda: gemm(*operands), fp8.gemm(*operands)) else fp8.gemm


def _load(kernel: Kernel) -> Gemm:
    """Imported when chosen: each module needs what only some machines have."""
    if kernel is Kernel.TRITON:
        from local_backend.kernels import triton_fp8  # noqa: PLC0415

        return triton_fp8.gemm
    from local_backend.kernels import hopper  # noqa: PLC0415

    return hopper.deep_gemm if kernel is Kernel.DEEP_GEMM else hopper.scaled_mm

"""Decides which implementation of a product runs: from what the device can do and what is installed.

The decisions are plain functions of Capabilities, so that they can be tested for hardware that is not there.
A kernel that nobody could run for a decision is documented as unmeasured in docs/local-backend.md.
"""

import importlib.util
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import torch
from torch.nn import functional


class Kernel(StrEnum):
    """Who computes: plain torch operations, one fused torch operation, Triton, or a vendor's library."""

    REFERENCE = "reference"
    TORCH = "torch"
    TRITON = "triton"
    DEEP_GEMM = "deep_gemm"
    FLASH_MLA = "flash_mla"
    FLASHINFER = "flashinfer"


PACKAGES = (Kernel.TRITON, Kernel.DEEP_GEMM, Kernel.FLASH_MLA, Kernel.FLASHINFER)

_AMPERE, _ADA, _HOPPER = (8, 0), (8, 9), (9, 0)
_BLOCK = 128
_TENSOR_CORE_BYTES = 16
_FLASH_MLA_SHAPE = (512, 64)
_FLASH_MLA_BLOCK = 64


@dataclass(frozen=True)
class Capabilities:
    """device: torch's device type. compute: CUDA's compute capability, cuda: its version; (0, 0) without."""

    device: str
    compute: tuple[int, int] = (0, 0)
    cuda: tuple[int, int] = (0, 0)
    packages: frozenset[str] = frozenset()

    @property
    def is_cuda(self) -> bool:
        return self.device == "cuda"

    @property
    def is_hopper(self) -> bool:
        """Exactly Hopper: its FP8 instructions and layouts are not those of later cards."""
        return self.is_cuda and self.compute == _HOPPER


@cache
def capabilities(device: torch.device) -> Capabilities:
    """What `device` can do and which optional packages are installed."""
    packages = frozenset(str(name) for name in PACKAGES if importlib.util.find_spec(name) is not None)
    if device.type != "cuda":
        return Capabilities(device.type, packages=packages)
    major, minor = (torch.version.cuda or "0.0").split(".")[:2]
    compute = torch.cuda.get_device_capability(device)
    return Capabilities("cuda", compute, (int(major), int(minor)), packages)


def fp8_gemm(have: Capabilities, inner: int, outer: int) -> Kernel:
    """Activations in tiles of 1x128 times weights [outer, inner] in blocks of 128x128, both e4m3.

    Only Triton and the reference take ragged blocks.
    """
    is_whole = inner % _BLOCK == 0 and outer % _BLOCK == 0
    if is_whole and have.is_hopper and Kernel.DEEP_GEMM in have.packages:
        return Kernel.DEEP_GEMM
    if is_whole and have.is_hopper and have.cuda >= (12, 9) and hasattr(functional, "scaled_mm"):
        return Kernel.TORCH
    if have.is_cuda and have.compute >= _ADA and Kernel.TRITON in have.packages:
        return Kernel.TRITON
    return Kernel.REFERENCE


def fp8_grouped_gemm(have: Capabilities, inner: int, outer: int) -> Kernel:
    """The same for the experts of a layer."""
    is_whole = inner % _BLOCK == 0 and outer % _BLOCK == 0
    if is_whole and have.is_hopper and Kernel.DEEP_GEMM in have.packages:
        return Kernel.DEEP_GEMM
    if have.is_cuda and have.compute >= _ADA and Kernel.TRITON in have.packages:
        return Kernel.TRITON
    return Kernel.REFERENCE


def grouped_gemm(have: Capabilities, dtype: torch.dtype, inner: int, outer: int) -> Kernel:
    """Experts' products in bfloat16 or float32, [rows, inner] x [experts, outer, inner].

    Torch's operation wants strides of whole 16 bytes, and on CUDA bfloat16.
    """
    multiple = _TENSOR_CORE_BYTES // dtype.itemsize
    is_aligned = inner % multiple == 0 and outer % multiple == 0
    has_dtype = dtype == torch.bfloat16 or (dtype == torch.float32 and not have.is_cuda)
    has_device = have.device == "cpu" or (have.is_cuda and have.compute >= _AMPERE)
    if is_aligned and has_dtype and has_device and hasattr(functional, "grouped_mm"):
        return Kernel.TORCH
    return Kernel.REFERENCE


def is_masked_layout(have: Capabilities, choices: int, experts: int) -> bool:
    """Whether experts run in the masked layout: few tokens on a GPU, where fixed shapes allow a CUDA graph.

    On a CPU the contiguous layout reads only the experts that were chosen.
    """
    return have.is_cuda and choices <= 2 * experts


def mla_decode(
    have: Capabilities, dtype: torch.dtype, kv_lora_rank: int, qk_rope_head_dim: int, block_size: int
) -> Kernel:
    """One query a sequence over paged latents."""
    is_deepseek = (kv_lora_rank, qk_rope_head_dim) == _FLASH_MLA_SHAPE and dtype == torch.bfloat16
    if is_deepseek and have.is_hopper:
        if Kernel.FLASH_MLA in have.packages and block_size == _FLASH_MLA_BLOCK:
            return Kernel.FLASH_MLA
        if Kernel.FLASHINFER in have.packages:
            return Kernel.FLASHINFER
    if have.is_cuda and have.compute >= _AMPERE and Kernel.TRITON in have.packages:
        return Kernel.TRITON
    return Kernel.REFERENCE

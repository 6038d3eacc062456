"""Gives a layer's matrices the form in which this device multiplies fastest, or the one asked for."""

from collections.abc import Callable
from enum import StrEnum

import torch
from torch import Tensor, nn

from local_backend.errors import ConfigError
from local_backend.kernels.cpu_int4 import GROUP, CpuProjection, Int4Projection, has_int4
from local_backend.kernels.cpu_int8 import Int8Projection
from local_backend.kernels.dispatch import Kernel, capabilities, fp8_gemm
from local_backend.kernels.expert_loop import ExpertLoop
from local_backend.kernels.fp8_projection import Fp8GroupedProjection, Fp8Projection
from local_backend.model.linear import GroupedProjection, Projection

Form = Callable[[Tensor, Tensor | None], nn.Module]
"""Makes a linear layer of a weight [out, in] and a bias."""


class Quantization(StrEnum):
    """How weights are stored beyond their dtype. AUTO: FP8 checkpoints as FP8 where the device has it."""

    AUTO = "auto"
    NONE = "none"
    INT8 = "int8"
    INT4 = "int4"
    FP8 = "fp8"


def choose_quantization(
    wanted: Quantization, device: torch.device, block: tuple[int, int] | None
) -> Quantization:
    """Resolve AUTO. Raises ConfigError for what the device does not have."""
    if wanted is Quantization.AUTO:
        has_fp8 = fp8_gemm(capabilities(device), 128, 128) is not Kernel.REFERENCE
        return Quantization.FP8 if block is not None and has_fp8 else Quantization.NONE
    if wanted in (Quantization.INT8, Quantization.INT4) and device.type != "cpu":
        raise ConfigError(f"--quantization {wanted} is for the CPU; use fp8 or none on {device.type}")
    if wanted is Quantization.INT4 and not has_int4():
        raise ConfigError("--quantization int4 needs a CPU with AVX2; use int8")
    return wanted


def repack(layer: nn.Module, device: torch.device, dtype: torch.dtype, quantization: Quantization) -> None:
    """Replace the matrices of a layer that kernels may repack."""
    form = _form(device, dtype, quantization)
    if form is None:
        return
    for parent in list(layer.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Projection):
                setattr(parent, name, form(child.weight.detach(), _detached(child.bias)))
            elif isinstance(child, GroupedProjection) and form is Fp8Projection:
                setattr(parent, name, Fp8GroupedProjection(child.weight.detach()))
            elif isinstance(child, GroupedProjection):
                setattr(parent, name, ExpertLoop(child.weight.detach(), form))


def _form(device: torch.device, dtype: torch.dtype, quantization: Quantization) -> Form | None:
    if quantization is Quantization.FP8:
        return Fp8Projection
    if quantization is Quantization.INT8:
        return Int8Projection
    if quantization is Quantization.INT4:
        return _int4_or_int8
    return CpuProjection if device.type == "cpu" and dtype == torch.bfloat16 else None


def _int4_or_int8(weight: Tensor, bias: Tensor | None) -> nn.Module:
    """Rows that groups of 32 do not fill take eight bits."""
    return Int8Projection(weight, bias) if weight.shape[1] % GROUP else Int4Projection(weight, bias)


def _detached(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach()

"""Gives a layer's matrices the form in which this device multiplies fastest, or the one asked for."""

from enum import StrEnum

import torch
from torch import Tensor, nn

from local_backend.kernels.cpu_int4 import CpuProjection
from local_backend.model.linear import Projection


class Quantization(StrEnum):
    """How weights are stored beyond their dtype."""

    NONE = "none"


def repack(layer: nn.Module, device: torch.device, dtype: torch.dtype, quantization: Quantization) -> None:
    """Replace the matrices of a layer that kernels may repack."""
    del quantization
    if device.type != "cpu" or dtype != torch.bfloat16:
        return
    for parent in list(layer.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Projection):
                setattr(parent, name, CpuProjection(child.weight.detach(), _detached(child.bias)))


def _detached(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach()

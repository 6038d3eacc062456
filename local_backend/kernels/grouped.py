"""Products of the experts of a layer, each row with the matrix of its own expert (grouped GEMM).

Shapes: weight [experts, outer, inner]. Contiguous: x [rows, inner], offsets int32 [experts] tell where each
expert's rows end. Masked: x [experts, capacity, inner], counts int32 [experts]; rows beyond a count hold
anything.
"""

import torch
from torch import Tensor
from torch.nn import functional

from local_backend.kernels.dispatch import Kernel, capabilities, grouped_gemm


def contiguous(x: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    """[rows, inner] -> [rows, outer]."""
    kernel = grouped_gemm(capabilities(x.device), x.dtype, weight.shape[2], weight.shape[1])
    if kernel is Kernel.TORCH and len(x):
        return functional.grouped_mm(x, weight.transpose(1, 2), offs=offsets)
    return contiguous_reference(x, weight, offsets)


def masked(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """[experts, capacity, inner] -> [experts, capacity, outer].

    One batched product over the whole capacity: few tokens cost what reading the weights costs, so that the
    spare rows are free, and nothing depends on `counts`, which a host could only learn by waiting.
    """
    del counts
    return torch.bmm(x, weight.transpose(1, 2))


def contiguous_reference(x: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    """The definition: one product an expert."""
    ends = offsets.tolist()
    starts = [0, *ends[:-1]]
    parts = [
        functional.linear(x[start:end], matrix)
        for start, end, matrix in zip(starts, ends, weight, strict=True)
    ]
    return torch.cat(parts)

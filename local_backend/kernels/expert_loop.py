"""The experts of a layer one after another, for weights whose form has no grouped product."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class ExpertLoop(nn.Module):
    """The interface of GroupedProjection over one module an expert; its host waits for the offsets."""

    def __init__(self, weight: Tensor, form: Callable[[Tensor, None], nn.Module]) -> None:
        """weight: float [experts, out, in]; form: makes the module of one expert's matrix."""
        super().__init__()
        self.out_features = weight.shape[1]
        self.experts = nn.ModuleList(form(matrix, None) for matrix in weight)

    def contiguous(self, x: Tensor, offsets: Tensor) -> Tensor:
        """X [rows, in], sorted by expert, -> [rows, out]."""
        output = x.new_empty(len(x), self.out_features)
        start = 0
        for expert, end in zip(self.experts, offsets.tolist(), strict=True):
            if end > start:
                output[start:end] = expert(x[start:end])
            start = end
        return output

    def masked(self, x: Tensor, counts: Tensor) -> Tensor:
        """X [experts, capacity, in] -> [experts, capacity, out]."""
        del counts
        return torch.stack([expert(rows) for expert, rows in zip(self.experts, x, strict=True)])

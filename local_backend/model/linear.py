"""The forms in which the model holds its matrices, so that kernels can tell which they may repack."""

import torch
from torch import Tensor, nn

from local_backend.kernels import grouped


class Projection(nn.Linear):
    """A matrix that is only ever applied as a whole, [.., in_features] -> [.., out_features].

    Kernels may replace such a module by one that stores the same matrix in another form; a weight that the
    model also slices (kv_b_proj) stays plain nn.Linear.
    """


class GroupedProjection(nn.Module):
    """The same matrix of all experts, [experts, out_features, in_features]; kernels may replace it too."""

    def __init__(self, experts: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, out_features, in_features))

    def contiguous(self, x: Tensor, offsets: Tensor) -> Tensor:
        """X [rows, in_features], sorted by expert, -> [rows, out_features]."""
        return grouped.contiguous(x, self.weight, offsets)

    def masked(self, x: Tensor, counts: Tensor) -> Tensor:
        """X [experts, capacity, in_features] -> [experts, capacity, out_features]."""
        return grouped.masked(x, self.weight, counts)

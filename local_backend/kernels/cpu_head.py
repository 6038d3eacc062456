"""The output matrix on a CPU: a bfloat16 product finds the likely tokens, float32 decides between them.

Reading a whole vocabulary in float32 for one token costs as much as half the layers. bfloat16 halves that,
but rounds logits of 25 to steps of an eighth, so that near ties become real ones; the likeliest few are
computed again exactly.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

# The likeliest tokens that are computed exactly; they hold nearly all probability at usual temperatures.
_EXACT = 64


class CpuHead(nn.Module):
    """float32 hidden states [.., hidden] -> float32 logits [.., vocab_size]."""

    def __init__(self, weight: Tensor) -> None:
        """weight: float32 [vocab_size, hidden], kept as it is beside a bfloat16 copy."""
        super().__init__()
        self._weight = weight
        self._rounded = weight.to(torch.bfloat16)

    def forward(self, hidden: Tensor) -> Tensor:
        logits = functional.linear(hidden.to(torch.bfloat16), self._rounded).float()
        likely = logits.topk(min(_EXACT, logits.shape[-1]), dim=-1).indices
        exact = torch.einsum("...d,...kd->...k", hidden, self._weight[likely])
        return logits.scatter(-1, likely, exact)

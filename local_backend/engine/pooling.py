"""One vector for a text: the mean of its tokens' final hidden states, of length 1.

A decoder that was trained to write has no token of its own for this. Means over all tokens are the common way
(compared with others in "SGPT", arXiv 2202.08904).
"""

import torch
from torch import Tensor
from torch.nn import functional


class MeanPool:
    """Sums hidden states chunk by chunk; a sequence that is computed again begins again."""

    def __init__(self) -> None:
        self._total = torch.zeros(())

    def add(self, states: Tensor, start: int) -> None:
        """`states` is the sum [hidden_size] over the chunk that begins at position `start`."""
        self._total = states if start == 0 else self._total + states

    def vector(self) -> tuple[float, ...]:
        """The mean of all of them, scaled to length 1. Raises ArithmeticError when it isn't numbers."""
        if not bool(self._total.isfinite().all()):
            raise ArithmeticError("the hidden states are not all numbers")
        return tuple(functional.normalize(self._total, dim=0).tolist())

"""The cache of MLA latents: one slot of `max_length` tokens a running sequence.

Memory is zeroed lazily by the operating system on CPU, so a slot costs only what was written to it so far.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from local_backend.model.config import DeepseekConfig


class LatentCache:
    """One tensor [layers, slots, max_length, latent_dim]; the scheduler gives out the slots."""

    def __init__(
        self, config: DeepseekConfig, slots: int, max_length: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        # Zeros, not garbage: masked positions are multiplied by a weight of zero, which must not meet a NaN.
        shape = (config.num_hidden_layers, slots, max_length, config.latent_dim)
        if device.type == "cpu":
            # numpy asks the system for zeroed pages, made when written; torch would write them all now.
            self._latents = torch.from_numpy(np.zeros(shape, np.float32)).to(dtype)
        else:
            self._latents = torch.zeros(shape, device=device, dtype=dtype)

    def view(self, slots: Sequence[int]) -> "SlotView":
        """The slots of one batch, in batch order."""
        return SlotView(self._latents, slots)


class SlotView:
    """A batch's slots, as the model's LatentView: neighbours are read in place, others gathered."""

    def __init__(self, latents: Tensor, slots: Sequence[int]) -> None:
        self._latents = latents
        self._slots = torch.tensor(slots, device=latents.device)
        first = slots[0]
        self._range = (
            slice(first, first + len(slots))
            if list(slots) == list(range(first, first + len(slots)))
            else None
        )

    def write(self, layer: int, positions: Tensor, latents: Tensor) -> None:
        """Store latents [batch, tokens, latent_dim] at positions [batch, tokens]."""
        self._latents[layer, self._slots[:, None], positions] = latents

    def read(self, layer: int, length: int) -> Tensor:
        """The first `length` latents of every sequence, [batch, length, latent_dim]."""
        if self._range is not None:
            return self._latents[layer, self._range, :length]
        return self._latents[layer, :, :length].index_select(0, self._slots)

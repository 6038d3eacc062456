"""Brings tokens to their experts and back, in the two layouts of DeepGEMM's grouped products.

Contiguous: the rows of all experts follow one another, sorted by expert; no row is wasted, so it suits many
tokens (prefill). Masked: every expert has a block of the same capacity with a count of its rows; all shapes
are known before the router runs, so that a CUDA graph can hold it (decode).

A choice is one (token, expert) pair, numbered token * top_k + k. Under expert parallelism a rank lays out
only the choices of its own experts, `first` to `first + experts`; the others contribute zero.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Contiguous:
    """order: the choices held, sorted by expert. offsets: int32 [experts], where each expert's rows end."""

    order: Tensor
    offsets: Tensor
    top_k: int
    tokens: int

    @classmethod
    def of(cls, chosen: Tensor, experts: int, first: int = 0, is_partial: bool = False) -> Self:
        """Lay out chosen experts, int64 [tokens, top_k]; is_partial says that some belong to other ranks."""
        local = chosen.flatten() - first
        if is_partial:
            local = local.where((local >= 0) & (local < experts), experts)
        counts = (local[:, None] == torch.arange(experts, device=local.device)).sum(0)
        offsets = counts.cumsum(0).to(torch.int32)
        order = local.argsort(stable=True)
        if is_partial:
            order = order[: int(offsets[-1])]
        return cls(order, offsets, chosen.shape[1], chosen.shape[0])

    def gather(self, x: Tensor) -> Tensor:
        """X [tokens, hidden] -> [rows, hidden]."""
        return x[self.order // self.top_k]

    def combine(self, rows: Tensor, weights: Tensor) -> Tensor:
        """Rows [rows, hidden] and the weights [tokens, top_k] of all choices -> [tokens, hidden]."""
        return _weighted_sum(rows, self.order, weights)


@dataclass(frozen=True)
class Masked:
    """slots: each choice's row in [experts * capacity], the last one a spare. counts: int32 [experts]."""

    slots: Tensor
    counts: Tensor
    capacity: int
    top_k: int

    @classmethod
    def of(cls, chosen: Tensor, experts: int, first: int = 0) -> Self:
        """Lay out chosen experts, int64 [tokens, top_k]; a token chooses an expert at most once."""
        tokens, top_k = chosen.shape
        local = chosen.flatten() - first
        choices = local[:, None] == torch.arange(experts, device=local.device)
        place = (choices.cumsum(0) - 1).gather(1, local.clamp(0, experts - 1)[:, None])[:, 0]
        slots = (local * tokens + place).where(choices.any(1), experts * tokens)
        return cls(slots, choices.sum(0).to(torch.int32), tokens, top_k)

    def gather(self, x: Tensor) -> Tensor:
        """X [tokens, hidden] -> [experts, capacity, hidden], zero where no row is."""
        experts = len(self.counts)
        padded = x.new_zeros(experts * self.capacity + 1, x.shape[1])
        padded[self.slots] = x.repeat_interleave(self.top_k, 0)
        return padded[:-1].view(experts, self.capacity, -1)

    def combine(self, blocks: Tensor, weights: Tensor) -> Tensor:
        """Blocks [experts, capacity, hidden] and the weights [tokens, top_k] -> [tokens, hidden]."""
        flat = blocks.flatten(0, 1)
        is_held = self.slots < len(flat)
        rows = flat[self.slots.where(is_held, 0)].masked_fill(~is_held[:, None], 0)
        return _weighted_sum(rows, None, weights)


def _weighted_sum(rows: Tensor, order: Tensor | None, weights: Tensor) -> Tensor:
    """Summed in the order of the choices, so that the result does not depend on the layout."""
    if order is not None:
        restored = rows.new_zeros(weights.numel(), rows.shape[1])
        restored[order] = rows
        rows = restored
    scaled = torch.unflatten(rows, 0, weights.shape) * weights[..., None].to(rows.dtype)
    return scaled.sum(1)

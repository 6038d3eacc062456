"""Dual chunk attention (ChunkLlama, arXiv 2402.17463): longer contexts without training.

Positions are counted within chunks shorter than the trained length, so that no query and key are ever further
apart than the model has seen. A query sees its own chunk at true distances (intra), the one before with
true distances nearby and the largest one beyond (successive), and all earlier chunks at the largest distance
(inter). A key has one position for all of them, so the cache and its prefixes stay as they are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from local_backend.model.config import DualChunk
from local_backend.model.rope import RotaryEmbedding, rotate

Rotary = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class ChunkedQueries:
    """A row's queries [tokens, heads, qk_rope_head_dim], rotated for each kind of distance."""

    chunk_length: int
    intra: Tensor
    successive: Tensor
    inter: Tensor

    def scores(self, k_rope: Tensor) -> Tensor:
        """Products with the keys [length, qk_rope_head_dim] -> [tokens, heads, length]."""
        parts = []
        tokens, chunk = len(self.intra), self.chunk_length
        start = len(k_rope) - tokens
        for begin in range(start // chunk * chunk, start + tokens, chunk):
            own = slice(max(begin - start, 0), begin + chunk - start)
            before = max(begin - chunk, 0)
            kinds = (
                (self.inter, k_rope[:before]),
                (self.successive, k_rope[before:begin]),
                (self.intra, k_rope[begin:]),
            )
            parts.append(torch.cat([queries[own] @ keys.T for queries, keys in kinds], dim=-1))
        return torch.cat(parts)


@dataclass(frozen=True)
class ChunkRotary:
    """Cosines and sines of a pass: of its keys, and of its queries towards other chunks."""

    chunk_length: int
    keys: Rotary
    successive: Rotary
    inter: Rotary

    @classmethod
    def of(cls, rotary: RotaryEmbedding, positions: Tensor, dual: DualChunk) -> "ChunkRotary":
        """For positions [rows, tokens]."""
        last = dual.trained_length - 1
        within = positions % dual.chunk_length
        beyond = (within + dual.chunk_length).clamp(max=last)
        inter = rotary(torch.full_like(positions, last))
        return cls(dual.chunk_length, rotary(within), rotary(beyond), inter)

    def queries(self, q_rope: Tensor, rotated: Tensor, row: int, is_interleaved: bool) -> ChunkedQueries:
        """Rotate the queries of a row, [tokens, heads, qk_rope_head_dim]."""
        successive, inter = (
            rotate(q_rope, cos[row, :, None], sin[row, :, None], is_interleaved)
            for cos, sin in (self.successive, self.inter)
        )
        return ChunkedQueries(self.chunk_length, rotated, successive, inter)

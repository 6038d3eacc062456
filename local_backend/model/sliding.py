"""Attention over a cache that has let go of what lies between its first positions and its last.

StreamingLLM (arXiv 2309.17453) counts positions within the cache, so that no distance exceeds what the model
has seen. Its own code keeps keys as they are before rotation and rotates the whole cache for every token.
Scores depend on differences alone, so it is enough to turn the query: among the recent positions differences
are the same in the text and in the cache; towards the sinks, the query is rotated as at its place in the
cache. A key is rotated once, for its place in the text. So nothing that is cached ever changes, blocks can be
shared, and no rounding adds up. MLA keeps position in the decoupled keys only; its latents need nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from local_backend.model.rope import rotate


@dataclass(frozen=True)
class SlidQueries:
    """A row's queries [tokens, heads, qk_rope_head_dim], towards the sinks and towards recent positions."""

    sinks: int
    far: Tensor
    near: Tensor

    def scores(self, k_rope: Tensor) -> Tensor:
        """Products with the keys [length, qk_rope_head_dim] -> [tokens, heads, length]."""
        return torch.cat([self.far @ k_rope[: self.sinks].T, self.near @ k_rope[self.sinks :].T], dim=-1)


@dataclass(frozen=True)
class SlidRotary:
    """Cosine and sine of a pass's places in the cache; `evicted` tokens of each row are gone."""

    sinks: int
    evicted: Sequence[int]
    cached: tuple[Tensor, Tensor]

    def queries(self, q_rope: Tensor, rotated: Tensor, row: int, is_interleaved: bool) -> SlidQueries | None:
        """None for a row that still has all of its text."""
        if not self.evicted[row]:
            return None
        cos, sin = self.cached
        far = rotate(q_rope, cos[row, :, None], sin[row, :, None], is_interleaved)
        return SlidQueries(self.sinks, far, rotated)

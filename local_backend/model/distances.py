"""Rotary attention whose distances are not simply the differences of positions in the text."""

from typing import Protocol

from torch import Tensor


class RotatedQueries(Protocol):
    """One row's queries, rotated as each part of the cache is to see them."""

    def scores(self, k_rope: Tensor) -> Tensor:
        """Products with the keys [length, qk_rope_head_dim] -> [tokens, heads, length].

        The queries are those of the last positions; keys after a query get a score too, to be masked.
        """


class Distances(Protocol):
    """The rotations of a pass beyond those of its places in the text."""

    def queries(
        self, q_rope: Tensor, rotated: Tensor, row: int, is_interleaved: bool
    ) -> RotatedQueries | None:
        """A row's queries [tokens, heads, qk_rope_head_dim], as they come and as its keys are rotated.

        None where the latter do for all of its keys.
        """

"""Which blocks of an endless text stay in the cache: its first ones, and its last.

StreamingLLM (arXiv 2309.17453): attention has to put its weight somewhere, and models put what they have no
use for on the first tokens they see, the attention sinks. A cache that keeps those and the latest tokens
serves texts of any length; one that keeps only the latest fails as soon as the first token goes.

What a token sees depends on its position alone: so a text's cache is the same however it was computed, and
its prefixes can be found again.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """In blocks: the `sinks` first and `recent` last ones stay. The window slides by `step` at a time."""

    sinks: int
    recent: int
    step: int = 1

    def __post_init__(self) -> None:
        if min(self.sinks, self.step) < 1 or self.recent <= self.step:
            raise ValueError(f"a window needs a sink, and more than {self.step} recent blocks")

    @property
    def blocks(self) -> int:
        """The most that a sequence holds."""
        return self.sinks + self.recent

    def dropped(self, block: int) -> int:
        """How many blocks behind the sinks are gone when the text's block of that index is computed."""
        return max(0, (block // self.step + 1) * self.step - self.blocks)

"""What users ask: texts of a wanted length, each different, so that no cache and no shared prefix helps."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

_TIDES = """
the sea rises and falls twice a day because moon and sun pull at water more where they are near less where
they are far so a wave as long as half of earth runs around it every coast bends that wave in its own way
some bays lift it high others hardly feel it at all people who live by tides learn to wait
"""
_WORDS = _TIDES.split()


@dataclass(frozen=True, slots=True)
class Lengths:
    """A number of tokens, drawn evenly from ``least`` to ``most``."""

    least: int
    most: int

    @classmethod
    def parse(cls, text: str) -> "Lengths":
        """Read `128`, or `32-512`; ValueError for anything else."""
        least, dash, most = text.partition("-")
        if not (least.isdecimal() and (most.isdecimal() or not dash)):
            raise ValueError("must be a number of tokens, or a range such as 32-512")
        lengths = cls(int(least), int(most or least))
        if not 1 <= lengths.least <= lengths.most:
            raise ValueError("must be at least 1, the smaller number first")
        return lengths

    def draw(self, random: Random) -> int:
        """One of them."""
        return random.randint(self.least, self.most)

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least}-{self.most}"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question, and how long its answer may be."""

    text: str
    output_tokens: int


def prompts(length: Lengths, output: Lengths, random: Random) -> Iterator[Prompt]:
    """Questions without end. A common English word is about one token in the usual vocabularies."""
    while True:
        words = [f"{random.getrandbits(32):x}", *random.choices(_WORDS, k=max(0, length.draw(random) - 4))]
        yield Prompt(" ".join(words), output.draw(random))

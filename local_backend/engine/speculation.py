"""Guesses the next tokens from the text itself, so that one pass can check several.

Prompt lookup (Saxena, 2023; n-grams as in vLLM): what followed the last few tokens when they stood
together before is proposed again. Each proposed token is a row of the pass like any other, and counts only
if the sampler, given the logits before it, chooses just that token. For a proposal without randomness this
is the rejection rule of speculative sampling (Leviathan et al., arXiv 2211.17192): a token is accepted with
its probability, and what comes instead has the distribution of the others. The sampler draws once a token,
so even a seed gives the same text.

A row more makes a pass longer, so guesses are made only where they pay: what a row costs is measured, how
often a sequence's guesses come true is remembered, and the i-th guess is made if the chance that it counts
exceeds its cost.
"""

from collections.abc import Iterable
from collections.abc import Sequence as Series
from dataclasses import dataclass
from math import log

from local_backend.engine.request import Sequence
from local_backend.engine.runner import Row

_NGRAMS = (4, 3, 2)
_HOPE = 0.6
"""How often guesses are taken to come true before there were any."""
_LEARNING = 0.1
_FORGETTING = 0.01
"""How fast a sequence that makes no guesses gets its hope back, a token."""
_MEMORY = 0.98
"""What a pass's duration counts after the next."""
_ROW_COST = 0.15
"""Of a pass with one row, what another row adds, before it was measured."""


class PromptLookup:
    """Finds what followed the last tokens when they stood together before."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def extend(self, tokens: Iterable[int]) -> None:
        """Take in more of the text."""
        for token in tokens:
            for size in _NGRAMS:
                if len(self._tokens) >= size:
                    self._after[tuple(self._tokens[-size:])] = len(self._tokens)
            self._tokens.append(token)

    def propose(self, count: int) -> list[int]:
        """At most `count` tokens that may come next, none where nothing is known."""
        for size in _NGRAMS:
            start = self._after.get(tuple(self._tokens[-size:]))
            if start is not None:
                return self._tokens[start : start + count]
        return []


class PassCost:
    """What rows cost: durations of passes as a line over their rows, older ones counting less."""

    def __init__(self) -> None:
        self._weight = self._rows = self._seconds = self._rows_squared = self._products = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """A pass of so many rows took so long."""
        sample = (1.0, rows, seconds, rows * rows, rows * seconds)
        sums = (self._weight, self._rows, self._seconds, self._rows_squared, self._products)
        new = [_MEMORY * total + value for total, value in zip(sums, sample, strict=True)]
        self._weight, self._rows, self._seconds, self._rows_squared, self._products = new

    def of_row(self, rows: int) -> float:
        """What one more row adds to a pass of so many, in shares of what the pass takes a sequence."""
        spread = self._weight * self._rows_squared - self._rows**2
        cost = _ROW_COST
        if spread > self._weight**2 / 4:
            slope = (self._weight * self._products - self._rows * self._seconds) / spread
            one = (self._seconds - slope * self._rows) / self._weight + slope
            cost = min(max(slope / one, 0.01), 1.0) if one > 0 else 1.0
        return cost * rows / (1 + cost * (rows - 1))


@dataclass
class _Guesser:
    """One sequence's text, and how often guesses about it come true."""

    sequence: Sequence
    lookup: PromptLookup
    rate: float = _HOPE
    made: int = 0
    length: int = 0

    def guess(self, cost: float, most: int) -> list[int]:
        """The tokens that are worth a row of this cost each."""
        sequence = self.sequence
        self.lookup.extend(sequence.tokens(len(self.lookup), len(sequence)))
        worth = most if self.rate >= 1 else int(log(cost) / log(self.rate))
        guesses = self.lookup.propose(min(worth, most)) if worth > 0 else []
        if not guesses:
            self.rate += _FORGETTING * (_HOPE - self.rate)
        self.made, self.length = len(guesses), len(sequence)
        return guesses

    def learn(self) -> int:
        """Compare what was guessed with what came; how many came true."""
        right = min(max(0, len(self.sequence) - self.length - 1), self.made)
        for index in range(min(right + 1, self.made)):
            self.rate += _LEARNING * ((index < right) - self.rate)
        return right


class Speculation:
    """The guesses of all sequences. Used by the engine's thread alone."""

    def __init__(self, longest: int, rows: int, block_size: int) -> None:
        """`longest` guesses a sequence, 0 for none; a pass has at most `rows` rows."""
        self._longest = longest
        self._rows = rows
        self._block_size = block_size
        self._guessers: dict[int, _Guesser] = {}
        self._open: list[_Guesser] = []
        self.cost = PassCost()

    def guess(self, rows: Series[Row]) -> list[Row]:
        """Rows for what may follow the last row of each sequence, as many as fit into the same pass."""
        cost = self.cost.of_row(len(rows)) if rows else 1.0
        guesses: list[Row] = []
        self._open = []
        for row in rows:
            sequence, left = row.sequence, self._rows - len(rows) - len(guesses)
            most = min(self._longest, left, self._room(sequence))
            if row.position + 1 < len(sequence) or most < 1:
                continue
            guesser = self._guesser(sequence)
            tokens = guesser.guess(cost, most)
            self._open.append(guesser)
            guesses += [Row(sequence, len(sequence) + index, token) for index, token in enumerate(tokens)]
        return guesses

    def learn(self) -> int:
        """See which guesses of the pass came true; how many did."""
        return sum(guesser.learn() for guesser in self._open)

    def forget(self, request_id: int) -> None:
        """A sequence has ended."""
        self._guessers.pop(request_id, None)

    def _guesser(self, sequence: Sequence) -> _Guesser:
        if sequence.request_id not in self._guessers:
            self._guessers[sequence.request_id] = _Guesser(sequence, PromptLookup())
        return self._guessers[sequence.request_id]

    def _room(self, sequence: Sequence) -> int:
        """Positions left in the blocks that the sequence holds: none are taken for guesses."""
        return sequence.blocks * self._block_size - len(sequence)

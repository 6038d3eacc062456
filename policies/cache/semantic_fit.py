"""How probable it is that an answer to a similar prompt is wrong, learnt for each prompt: vCache's curves.

After "vCache: Verified Semantic Prompt Caching" (Schroeder et al., arXiv:2502.03771). One threshold for all
is wrong, since what counts as the same question differs between questions. So each stored prompt has its own
curve of how probable it is that its answer is right at similarity s, L(s) = 1 / (1 + exp(-g * (s - t))),
fitted to what was seen: a call was sent upstream although the prompt was near, and the two answers were
compared. How much of that risk may be taken is for ``semantic_budget`` to say.

Unlike in the paper, what is believed of (t, g) is a distribution over a grid: it needs no solver, and is
defined before the first observation. And a new prompt begins with what the others of its route taught, as in
empirical Bayes (Robbins, 1956), where the paper has each begin with nothing.
"""

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

_MIDDLES = [0.50 + 0.02 * step for step in range(28)]
_SLOPES = (8.0, 16.0, 32.0, 64.0, 128.0)
"""With less than the last, no curve would be certain even of what is nearly word for word the same."""

_GRID = list(product(_MIDDLES, _SLOPES))
_DOUBTS = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
"""What the confidence bound is taken at, the paper's epsilon: the best of them counts."""

_ROUNDING = 1e-9
"""Sums of the same shares in another order are the same sum."""

_BEGINNING = 4.0
"""How many prompts' worth of knowing nothing the pool begins with."""


@dataclass(frozen=True, slots=True)
class SemanticOptions:
    """``delta`` is the share of calls that may get a wrong answer; ``verify`` that of checked hits.

    ``similar`` is the least similarity at which answers are compared at all.
    """

    delta: float = 0.01
    verify: float = 0.05
    similar: float = 0.7

    def __post_init__(self) -> None:
        if not 0 < self.delta < 1:
            raise ValueError("cache.semantic.delta must be above 0% and below 100%")
        if not 0 <= self.verify <= 1:
            raise ValueError("cache.semantic.verify must be between 0% and 100%")


class Pool:
    """What the prompts of a route have in common: how many of them are like each curve of the grid."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts = [_BEGINNING / len(_GRID)] * len(_GRID)

    def without(self, part: Sequence[float] | None) -> list[float]:
        """The counts less what one prompt has put in: that is no evidence for itself."""
        if part is None:
            return self._counts
        return [max(count - own, 0.0) for count, own in zip(self._counts, part, strict=True)]

    def put(self, counts: Sequence[float], part: Sequence[float]) -> None:
        """Take a prompt's belief back in: ``counts`` are those without it."""
        self._counts = [count + own for count, own in zip(counts, part, strict=True)]


class Fit:
    """What is known of one stored prompt: ``seen`` observations, and what they make of the pool's curves."""

    __slots__ = ("_likelihood", "_part", "_pool", "seen")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._likelihood: array[float] | None = None
        self._part: array[float] | None = None
        self.seen = 0

    def observe(self, similarity: float, *, same: bool) -> None:
        """A call as similar as that had the same answer, or another."""
        terms = zip(self._likelihood or [1.0] * len(_GRID), _chances(similarity), strict=True)
        likelihood = [before * (chance if same else 1 - chance) for before, chance in terms]
        top = max(likelihood)
        self._likelihood = array("d", [term / top for term in likelihood])
        others = self._pool.without(self._part)
        self._part = array("d", self._belief(others))
        self._pool.put(others, self._part)
        self.seen += 1

    def risk(self, similarity: float) -> float:
        """The most that the stored answer's probability of being wrong for such a call may be."""
        return bound(_chances(similarity), self._belief(self._pool.without(self._part)))

    def _belief(self, others: Sequence[float]) -> list[float]:
        """The probability of each curve, after what was seen here and what the other prompts taught."""
        weights = others
        if self._likelihood is not None:
            weights = [share * likely for share, likely in zip(others, self._likelihood, strict=True)]
        total = sum(weights)
        return [weight / total for weight in weights]


def bound(chances: Sequence[float], belief: Sequence[float]) -> float:
    """The paper's bound of the probability that an answer is wrong.

    ``chances`` are what each curve gives for it to be right, ``belief`` how probable each curve is. With
    doubt e it is right with (1 - e) times the chance that all but e of the curves give; the best e counts.
    """
    right, doubts, passed = 0.0, iter(sorted(_DOUBTS)), 0.0
    doubt = next(doubts)
    for chance, share in sorted(zip(chances, belief, strict=True)):
        passed += share
        while passed > doubt + _ROUNDING:
            right = max(right, (1 - doubt) * chance)
            further = next(doubts, None)
            if further is None:
                return 1 - right
            doubt = further
    return 1 - right


def _chances(similarity: float) -> list[float]:
    """What each curve of the grid gives at a similarity."""
    return [1 / (1 + math.exp(slope * (middle - similarity))) for middle, slope in _GRID]

"""How much may be risked with answers to similar prompts, so that ``delta`` of calls get a wrong one.

vCache (arXiv:2502.03771) spends ``delta`` on each call by itself: where an answer is wrong with a probability
of 50%, it is given to a share of the calls that makes ``delta`` wrong ones. That buys few answers, and the
bad ones. The same risk buys most answers if it is spent on the surest first, as in a knapsack whose items
come one by one: each call pays ``delta`` in, an answer costs its risk, and a price that follows what is spent
tells which are cheap enough ("adaptive pacing", Balseiro and Gur, "Learning in Repeated Auctions with
Budgets", 2019). What was paid in is never exceeded, so the promise holds for the calls together.

Risks are what the curves believe, and some truths are on no curve. So what verification finds is kept beside
them: one wrong answer found stands for ``1 / verify`` of them, and while these come to more than what was
paid in, no answer is given.
"""

import math

from policies.cache.semantic_fit import SemanticOptions

_STEP = 0.02
"""How fast the price follows what is spent: by 2% at a call that costs nothing."""

_HIGHEST = 0.5
"""What is rather wrong than right isn't given, however much is left, unless ``delta`` is above that."""

_SAVED = 1000
"""Calls whose share may be saved up: what lay unused for long mustn't be lost all at once."""


class RiskBudget:
    """Of one route. Ask it once for each call to which a stored prompt is near."""

    __slots__ = ("_delta", "_found", "_left", "_price", "_unfound")

    def __init__(self, options: SemanticOptions) -> None:
        self._delta = self._price = options.delta
        self._left = 0.0
        self._found = 1 / options.verify if options.verify else 0.0
        self._unfound = self._found

    def allows(self, risk: float) -> bool:
        """Whether an answer may be given that is wrong with this probability; if so, that is spent."""
        self._left = min(self._left + self._delta, self._delta * _SAVED)
        self._unfound = min(self._unfound + self._delta, 2 * self._found)
        cheap = risk <= self._price
        pace = 1 - (risk if cheap else 0.0) / self._delta
        given = cheap and risk <= self._left and self._unfound >= 0
        self._price = max(min(self._price * math.exp(_STEP * pace), _HIGHEST), self._delta)
        if given:
            self._left -= risk
        return given

    def found_wrong(self) -> None:
        """Verification found a given answer to be wrong."""
        self._unfound -= self._found

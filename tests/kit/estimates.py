"""Estimates that a test knows beforehand."""

from collections.abc import Callable
from dataclasses import dataclass, field

from policies.service import Call, Estimate, Usage


@dataclass
class FixedEstimates:
    """Says what ``guess`` says, and keeps what was learnt."""

    guess: Callable[[Call], Usage] = lambda _: Usage(input=3, output=2)
    learnt: list[Usage] = field(default_factory=list)

    def __call__(self, call: Call) -> Estimate:
        guess = self.guess(call)
        return Estimate(guess.input, guess.output, likely_output=guess.output)

    def learn(self, _: Call, usage: Usage) -> None:
        self.learnt.append(usage)

"""A retry budget: how much extra load the failures of an upstream may cause.

Counting attempts bounds what one call does, not what all of them do together: in an outage three
attempts a call are three times the load, at the worst moment. A budget bounds the sum. This is
Finagle's RetryBudget (finagle-core, RetryBudget.scala; tower's retry::budget follows it): every
request deposits a part of a token, every retry and every hedge withdraws a whole one, a small steady
inflow lets quiet upstreams retry at all, and deposits are forgotten after some seconds, here
exponentially, which takes one number instead of a ring of time slots.

One thing differs: a retry that is answered pays its token back. It was no waste, and a strict budget
would fail the calls of a group of equals, one of which died, although the others could answer them
all. So what is bounded is the load that came to nothing: in a total outage nothing is paid back.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BudgetOptions:
    """``ratio`` retries a request plus ``per_second`` retries a second, remembered for ``memory`` seconds."""

    ratio: float = 0.1
    per_second: float = 1.0
    memory: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"retries.budget is {self.ratio:g}: give a share of the traffic from 0% to 100%")
        if self.per_second < 0:
            raise ValueError(f"per_second is {self.per_second:g}: give 0 or more retries a second")
        if self.memory <= 0:
            raise ValueError(f"memory is {self.memory:g} s: give more than 0 s")


class RetryBudget:
    """Tokens for retries and hedges; times in seconds on any monotonic scale.

    In any span of t seconds with n requests, withdrawals less refunds are at most
    ``ratio * n + per_second * t`` and what was in the budget at its start.
    """

    __slots__ = ("_balance", "_options", "_updated")

    def __init__(self, options: BudgetOptions) -> None:
        self._options = options
        self._balance = options.per_second * options.memory
        self._updated = -math.inf

    def deposit(self, now: float) -> None:
        """Count a request."""
        self._balance = self.balance(now) + self._options.ratio
        self._updated = now

    def withdraw(self, now: float) -> bool:
        """Take a token for one more attempt; False where none is left."""
        self._balance = self.balance(now)
        self._updated = now
        if self._balance < 1:
            return False
        self._balance -= 1
        return True

    def refund(self) -> None:
        """Give back the token of a retry that was answered."""
        self._balance += 1

    def balance(self, now: float) -> float:
        """The tokens left."""
        options = self._options
        kept = math.exp((self._updated - now) / options.memory) if now > self._updated else 1.0
        return self._balance * kept + options.per_second * options.memory * (1 - kept)

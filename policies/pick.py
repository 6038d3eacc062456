"""Strategies: which of several available equals takes a call.

- latency: two random choices (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing",
  2001) compared by finagle's peak-EWMA load. The best of all would be everybody's best at once; the
  better of two is nearly as good and never a stampede.
- weighted: nginx's smooth weighted round robin, which spreads a weight evenly over time.
- least-busy: fewest calls in flight per weight.
- cheapest and priority: the lowest cost or priority that is available, latency among equals.
- affinity: policies/affinity.py.
"""

import random
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from policies.affinity import Affinity
from policies.member import Member
from policies.service import Call

StrategyName = Literal["latency", "weighted", "least-busy", "cheapest", "priority", "affinity"]


class Strategy(Protocol):
    """Chooses one of ``members``, which are one or more, all available."""

    def choose(self, members: Sequence[Member], call: Call, now: float, /) -> Member: ...


class Latency:
    """The less loaded of two random members; ``gamma`` is how much the cost weighs."""

    def __init__(self, rng: random.Random, gamma: float = 0.0) -> None:
        self._rng = rng
        self._gamma = gamma

    def choose(self, members: Sequence[Member], call: Call, now: float) -> Member:  # noqa: ARG002
        count = len(members)
        if count == 1:
            return members[0]
        first = int(self._rng.random() * count)
        second = (first + 1 + int(self._rng.random() * (count - 1))) % count
        one, other = members[first], members[second]
        return one if self._load(one, now) <= self._load(other, now) else other

    def _load(self, member: Member, now: float) -> float:
        load = member.load(now)
        return load * float(member.cost**self._gamma) if self._gamma else load


class Weighted:
    """Each member in proportion to its weight, as evenly spread as can be."""

    def __init__(self) -> None:
        self._credit: dict[Member, float] = {}

    def choose(self, members: Sequence[Member], call: Call, now: float) -> Member:  # noqa: ARG002
        credit = self._credit
        total = 0.0
        best = members[0]
        for member in members:
            weight = member.weigh(now)
            total += weight
            credit[member] = credit.get(member, 0.0) + weight
            if credit[member] > credit[best]:
                best = member
        credit[best] -= total
        return best


class LeastBusy:
    """The fewest calls in flight per weight; chance decides between equals."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def choose(self, members: Sequence[Member], call: Call, now: float) -> Member:  # noqa: ARG002
        start = int(self._rng.random() * len(members))
        turned = [*members[start:], *members[:start]]
        return min(turned, key=lambda member: (member.inflight + 1) / member.weigh(now))


class Lowest:
    """The lowest rank that is available; ``among`` decides between equals."""

    def __init__(self, rank: Callable[[Member], float], among: Strategy) -> None:
        self._rank = rank
        self._among = among

    def choose(self, members: Sequence[Member], call: Call, now: float) -> Member:
        lowest = min(map(self._rank, members))
        return self._among.choose([m for m in members if self._rank(m) == lowest], call, now)


def strategy(name: StrategyName, rng: random.Random, *, gamma: float = 0.0, bound: float = 1.5) -> Strategy:
    """The strategy of this name."""
    latency = Latency(rng, gamma)
    strategies: dict[StrategyName, Strategy] = {
        "latency": latency,
        "weighted": Weighted(),
        "least-busy": LeastBusy(rng),
        "cheapest": Lowest(lambda member: member.cost, latency),
        "priority": Lowest(lambda member: member.priority, latency),
        "affinity": Affinity(bound),
    }
    return strategies[name]

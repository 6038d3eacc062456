"""Calls that reserve far more output than comes, against one limit of tokens a minute."""

from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random

from policies.memory import MemoryStore
from policies.ratelimit import Bucket, Charge, Dimension, Limit, Window

START = 1_790_000_000.0
TOKENS = Limit(Dimension.TOKENS, 60_000, Window.MINUTE)
MAX_TOKENS = 4096


@dataclass
class Outcome:
    """What was admitted: when, and how many tokens each call used in truth."""

    seconds: float
    admitted: list[tuple[float, int]] = field(default_factory=list)
    refused: int = 0

    @property
    def used(self) -> int:
        return sum(tokens for _, tokens in self.admitted)

    @property
    def utilisation(self) -> float:
        """Share of what the rate gives over the time, its burst left aside."""
        return self.used / (TOKENS.rate * self.seconds)

    def per_minute(self) -> list[int]:
        totals = [0] * round(self.seconds / 60)
        for at, tokens in self.admitted:
            totals[min(len(totals) - 1, int((at - START) / 60))] += tokens
        return totals


def offer(*, settle: bool, seconds: float = 1800, seed: int = 1, demand: float = 2.0) -> Outcome:
    """Offer ``demand`` times the limit: prompts of 300 tokens, answers of 200 (log-normal), 15 ms a token."""
    rng = Random(seed)
    store, bucket = MemoryStore(lambda: 0.0), Bucket("b", TOKENS)
    outcome = Outcome(seconds)
    endings: list[tuple[float, str, float, float]] = []
    now, number = START, 0
    while now < START + seconds:
        now += rng.expovariate(demand * TOKENS.rate / 500)
        while endings and endings[0][0] <= now:
            ended, holder, delta, taken_at = heappop(endings)
            store.settle_at(ended, holder, [Charge(bucket, delta)], taken_at)
        prompt = rng.randint(100, 500)
        answer = min(MAX_TOKENS, max(1, round(rng.lognormvariate(4.9, 0.9))))
        estimate, used = prompt + MAX_TOKENS, prompt + answer
        number += 1
        if not store.take_at(now, str(number), [Charge(bucket, estimate)]).admitted:
            outcome.refused += 1
            continue
        outcome.admitted.append((now, used))
        if settle:
            heappush(endings, (now + 0.3 + answer * 0.015, str(number), used - estimate, now))
    return outcome


def busiest(outcome: Outcome, window: float) -> int:
    """The most tokens that calls admitted within ``window`` seconds used."""
    most = total = first = 0
    for at, tokens in outcome.admitted:
        total += tokens
        while outcome.admitted[first][0] < at - window:
            total -= outcome.admitted[first][1]
            first += 1
        most = max(most, total)
    return most

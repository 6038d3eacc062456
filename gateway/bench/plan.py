"""A run: how many users come when, what they ask, and with which seed, so that it can be repeated."""

from dataclasses import dataclass

from gateway.bench.prompts import Lengths


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """So many users a second come, at random times."""

    rate: float

    def __str__(self) -> str:
        return f"open loop, {self.rate:g} requests/s (Poisson)"


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """So many users ask again once answered."""

    concurrency: int

    def __str__(self) -> str:
        return f"closed loop, {self.concurrency} at a time"


@dataclass(frozen=True, slots=True)
class Plan:
    """The load until ``requests`` are sent or ``duration`` seconds are over; None is no bound."""

    load: OpenLoop | ClosedLoop
    requests: int | None
    duration: float | None
    prompt_tokens: Lengths
    output_tokens: Lengths
    seed: int

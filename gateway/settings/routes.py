"""What clients may ask for, and where each name leads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from gateway.settings.base import Section, Text, Whole
from gateway.settings.caching import ModelCache
from gateway.settings.units import Duration, Share, duration

ASKED = "*"
P95 = "p95"

Strategy = Literal["latency", "weighted", "least-busy", "cheapest", "priority", "affinity"]


@dataclass(frozen=True, slots=True)
class Target:
    """One model at one provider; the model `*` stands for the name that the client asked for."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


def _target(value: Any) -> Target:
    if isinstance(value, Target):
        return value
    if not isinstance(value, str):
        raise ValueError("must be text of the form provider/model")  # noqa: TRY004 - pydantic collects ValueError
    provider, _, model = value.partition("/")
    if not provider or not model:
        raise ValueError("must have the form provider/model")
    if ASKED in model and model != ASKED:
        raise ValueError("'*' stands alone: provider/* passes on the name that was asked for")
    return Target(provider, model)


def _step(value: Any) -> Any:
    return [value] if isinstance(value, str | Target) else value


def _delay(value: Any) -> float | None:
    return None if value is None or value == P95 else duration(value)


Step = Annotated[
    tuple[Annotated[Target, BeforeValidator(_target)], ...],
    BeforeValidator(_step),
    Field(min_length=1),
]
Route = Annotated[tuple[Step, ...], Field(min_length=1)]


class Timeouts(Section):
    """Seconds. `connect` bounds reaching one upstream, `total` the whole call with all its attempts.

    `first_token` and `stall` are for streams: the wait for the first content, and between two parts of
    it. `unary` is for whole bodies, where the first token can't be seen.
    """

    connect: Duration = Field(default=5.0, gt=0)
    first_token: Duration = Field(default=30.0, gt=0)
    stall: Duration = Field(default=30.0, gt=0)
    unary: Duration = Field(default=300.0, gt=0)
    total: Duration = Field(default=600.0, gt=0)


class Retries(Section):
    """`attempts` counts the first one too; `budget` bounds retries and hedges by the traffic."""

    attempts: Whole = Field(default=3, ge=1)
    budget: Share = 0.1


class Hedge(Section):
    """A second attempt for a late first token: `after` seconds, or None at the 95th percentile."""

    after: Annotated[float | None, BeforeValidator(_delay)] = None
    tiers: Annotated[tuple[Text, ...], Field(min_length=1)]


class Model(Section):
    """A name, or a glob of names, that clients may ask for.

    `route` holds steps that are tried in order; the targets inside one step are equals to balance over.
    `cache` None answers nothing twice.
    """

    route: Route
    balance: Strategy = "latency"
    timeouts: Timeouts = Timeouts()
    retries: Retries = Retries()
    hedge: Hedge | None = None
    on_stream_break: Literal["rescue", "error"] = "rescue"
    cache: ModelCache | None = None

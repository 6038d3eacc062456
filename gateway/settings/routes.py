"""What clients may ask for, and where each name leads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from gateway.settings.base import Section
from gateway.settings.units import Duration

ASKED = "*"


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


Step = Annotated[
    tuple[Annotated[Target, BeforeValidator(_target)], ...],
    BeforeValidator(_step),
    Field(min_length=1),
]
Route = Annotated[tuple[Step, ...], Field(min_length=1)]


class Timeouts(Section):
    """Seconds. `connect` bounds reaching one upstream, `total` the whole call with all its attempts."""

    connect: Duration = Field(default=5.0, gt=0)
    total: Duration = Field(default=600.0, gt=0)


class Model(Section):
    """A name, or a glob of names, that clients may ask for.

    `route` holds steps that are tried in order; the targets inside one step are equals to balance over.
    """

    route: Route
    timeouts: Timeouts = Timeouts()
    balance: Literal["weighted"] = "weighted"

"""How an account is watched, and by which hours it is used."""

from __future__ import annotations

from datetime import time
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from gateway.settings.base import Number, Section, Whole
from gateway.settings.problems import Fault, faulty
from gateway.settings.units import Duration

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEK: tuple[Day, ...] = get_args(Day)


def _zone(name: Any) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise ValueError("must be a time zone such as UTC or Asia/Shanghai") from None


def _hour(text: Any) -> time:
    try:
        return time.fromisoformat(text)
    except (ValueError, TypeError):
        raise ValueError("must be a time of day such as 16:30") from None


Zone = Annotated[ZoneInfo, BeforeValidator(_zone)]
Hour = Annotated[time, BeforeValidator(_hour)]


class Window(Section):
    """From one time of day to another, past midnight where it ends before it begins, on all days or some.

    In it the account's `weight` and `max_concurrency` stand for the usual ones; 0 leaves it out.
    """

    start: Hour = Field(alias="from")
    end: Hour = Field(alias="to")
    days: tuple[Day, ...] = WEEK
    weight: Number | None = Field(default=None, ge=0, allow_inf_nan=False)
    max_concurrency: Whole | None = Field(default=None, ge=0)


class Schedule(Section):
    """Off-peak knowledge. The first window that covers the time counts."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    zone: Zone = ZoneInfo("UTC")
    windows: Annotated[tuple[Window, ...], Field(min_length=1)]


class Probe(Section):
    """How an account that is out is asked whether it is back.

    `models` lists its models, which is free; `token` asks for one token, `paid_per_hour` times at most.
    """

    kind: Literal["off", "models", "token"] = "models"
    interval: Duration = Field(default=10.0, gt=0)
    paid_per_hour: Whole = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _paid(self) -> Probe:
        if self.kind == "token" and not self.paid_per_hour:
            fault = Fault(
                "missing; a token probe costs money, say how many an hour may", at=("paid_per_hour",)
            )
            raise faulty([fault])
        return self

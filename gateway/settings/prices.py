"""What a model's tokens cost, as data: in a provider's preset, or in an account's own settings."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import ConfigDict, Field

from gateway.settings.base import Number, Section, Text
from gateway.settings.upkeep import WEEK, Day, Hour, Zone


class PriceWindow(Section):
    """Hours in which every price of a model is multiplied by `factor`: 0.5 is half price, 2 is double.

    From one time of day to another, past midnight where it ends before it begins, on all days or some.
    """

    start: Hour = Field(alias="from")
    end: Hour = Field(alias="to")
    days: tuple[Day, ...] = WEEK
    factor: Number = Field(gt=0, allow_inf_nan=False)


class PriceHours(Section):
    """By which hours a price changes. The first window that covers the time counts."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    zone: Zone = ZoneInfo("UTC")
    windows: Annotated[tuple[PriceWindow, ...], Field(min_length=1)]


class Price(Section):
    """US dollars for a million tokens.

    `cached_input` None means that a hit in the provider's prompt cache costs as much as a miss,
    `reasoning` None that reasoning costs as much as other output.
    """

    input: Number = Field(ge=0, allow_inf_nan=False)
    cached_input: Number | None = Field(default=None, ge=0, allow_inf_nan=False)
    output: Number = Field(ge=0, allow_inf_nan=False)
    reasoning: Number | None = Field(default=None, ge=0, allow_inf_nan=False)
    hours: PriceHours | None = None


class Prices(Section):
    """List prices by model's name or glob, the day they were read and where."""

    as_of: date
    source: Text
    models: Mapping[Text, Price] = Field(min_length=1)

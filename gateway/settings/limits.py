"""Limits as people write them: `10/minute`, one or a list for each thing that is counted.

The same form stands in the file, in the admin API and in the database.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from gateway.settings.base import Number, Section, Whole
from gateway.settings.problems import Fault, faulty, nearest
from policies.ratelimit import Dimension, Limit, Window

UTC = "UTC"

_RATE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)/([a-zA-Z]{1,10})")
_PATTERN = rf"^(?=[^/]*[1-9])[0-9]{{1,15}}(\.[0-9]{{1,9}})?/({'|'.join(Window)})$"
_ROLLING = {Window.SECOND, Window.MINUTE, Window.HOUR}


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("must be a time zone such as Europe/Berlin or UTC") from None
    return name


def _rate(text: Any) -> Any:
    if isinstance(text, str) and (found := _RATE.fullmatch(text)):
        if found[2] not in set(Window):
            windows = ", ".join(Window)
            close = nearest(found[2].lower(), [window.value for window in Window])
            raise faulty([Fault(f"the window must be one of {windows}", close and f"{found[1]}/{close}")])
        if float(found[1]) == 0:
            raise ValueError("must be above zero; leave it out to set no limit")
        return text
    raise ValueError("must be an amount and its window, such as 10/minute or 50/day")


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | Mapping | Amount | int | float) else value


def _or_text(schema: dict[str, Any]) -> None:
    """Describe an amount as text or as the object."""
    described = dict(schema)
    schema.clear()
    schema["anyOf"] = [
        {"type": "string", "pattern": _PATTERN, "examples": ["10/minute", "50/day"]},
        described,
    ]


def _or_one(schema: dict[str, Any]) -> None:
    """Describe a list that may be a single item."""
    described = dict(schema)
    schema.clear()
    schema["anyOf"] = [described["items"], described]


Zone = Annotated[str, AfterValidator(_zone)]
Rate = Annotated[str, BeforeValidator(_rate), Field(json_schema_extra={"pattern": _PATTERN})]


class Amount(Section):
    """So much in a window. Written `10/minute` alone, or as an object where there is more to say.

    `burst` is what may come at once, the whole amount unless told. A `strict` limit lets nothing pass
    while it can't be counted.
    """

    model_config = ConfigDict(json_schema_extra=_or_text)

    amount: Rate
    burst: Annotated[Number, Field(gt=0, allow_inf_nan=False)] | None = None
    strict: bool = False

    @property
    def number(self) -> float:
        """How much."""
        return float(self.amount.partition("/")[0])

    @property
    def window(self) -> Window:
        """In what time."""
        return Window(self.amount.partition("/")[2])

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        if isinstance(value, Mapping | Amount):
            return value
        return {"amount": _rate(value)}

    @model_validator(mode="after")
    def _rolling(self) -> Amount:
        if self.burst is not None and self.window not in _ROLLING:
            raise faulty(
                [Fault("a day and a month have no burst: all of them may come at once", at=("burst",))]
            )
        return self

    @model_serializer(mode="wrap")
    def _shortest(self, serialize: SerializerFunctionWrapHandler) -> str | dict[str, Any]:
        if self.burst is None and not self.strict:
            return self.amount
        written: dict[str, Any] = serialize(self)
        return {name: value for name, value in written.items() if value not in {None, False}}


Amounts = Annotated[tuple[Amount, ...], BeforeValidator(_listed), Field(json_schema_extra=_or_one)]


class Limits(Section):
    """What may be used: nothing is limited that isn't named. `spend` is in US dollars.

    `concurrency` is how many calls may be under way at a time.
    """

    requests: Amounts = ()
    tokens: Amounts = ()
    input_tokens: Amounts = ()
    output_tokens: Amounts = ()
    spend: Amounts = ()
    concurrency: Annotated[Whole, Field(ge=1)] | None = None

    def of(self, zone: str = UTC) -> tuple[Limit, ...]:
        """The limits, with days and months that begin in ``zone``."""
        found = [
            Limit(dimension, entry.number, entry.window, burst=entry.burst, zone=zone, strict=entry.strict)
            for dimension in Dimension
            if dimension is not Dimension.CONCURRENCY
            for entry in getattr(self, dimension.value)
        ]
        if self.concurrency is not None:
            found.append(Limit(Dimension.CONCURRENCY, float(self.concurrency)))
        return tuple(found)

    def written(self) -> dict[str, Any]:
        """The form that it was written in, as JSON: what isn't limited is left out."""
        return {
            name: value[0] if isinstance(value, list) and len(value) == 1 else value
            for name, value in self.model_dump(mode="json", exclude_defaults=True).items()
        }

    @model_validator(mode="after")
    def _distinct(self) -> Limits:
        faults = []
        for dimension in Dimension:
            if dimension is Dimension.CONCURRENCY:
                continue
            entries: tuple[Amount, ...] = getattr(self, dimension.value)
            windows = [entry.window for entry in entries]
            faults += [
                Fault(f"a limit for each {window} is given above", at=(dimension.value, place))
                for place, window in enumerate(windows)
                if window in windows[:place]
            ]
        if faults:
            raise faulty(faults)
        return self

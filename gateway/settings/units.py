"""Durations, sizes and shares as people write them, turned into seconds, bytes and fractions.

A bare number is refused: `timeout: 30` reads as seconds to one person and as milliseconds to the next.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)([a-zA-Z%]+)", re.ASCII)
_LONGEST = 32

_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}
_LONG = {"h": Decimal(3600), "d": Decimal(86400)}
_BYTES = {
    "B": Decimal(1),
    "kB": Decimal(10**3),
    "MB": Decimal(10**6),
    "GB": Decimal(10**9),
    "KiB": Decimal(2**10),
    "MiB": Decimal(2**20),
    "GiB": Decimal(2**30),
}
_SHARES = {"%": Decimal("0.01")}
_TOKENS = {"k": Decimal(10**3), "M": Decimal(10**6)}


def _parse(text: object, units: dict[str, Decimal], complaint: str) -> Decimal:
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise ValueError(complaint)
    match = _NUMBER.fullmatch(text)
    if match is None or match[2] not in units:
        raise ValueError(complaint)
    return Decimal(match[1]) * units[match[2]]


def duration(text: object) -> float:
    """Return seconds for `250ms`, `30s`, `10m` or `1h`; ValueError for anything else."""
    return float(_parse(text, _SECONDS, "must be a duration with its unit, such as 250ms, 30s, 10m or 1h"))


def period(text: object) -> float:
    """Return seconds for `12h` or `90d`; ValueError for anything else."""
    return float(_parse(text, _LONG, "must be a period with its unit, such as 12h or 90d"))


def size(text: object) -> int:
    """Return whole bytes for `512B`, `64KiB`, `32MiB` or `1GiB` (kB, MB, GB too); ValueError otherwise."""
    complaint = "must be a size with its unit, such as 512B, 64KiB, 32MiB or 1GiB"
    amount = _parse(text, _BYTES, complaint)
    if amount != int(amount):
        raise ValueError("must come to a whole number of bytes")
    return int(amount)


def percent(text: object) -> float:
    """Return the fraction for `10%`, from 0 to 1; ValueError for anything else."""
    share = _parse(text, _SHARES, "must be a percentage, such as 10%")
    if share > 1:
        raise ValueError("must be at most 100%")
    return float(share)


def tokens(value: object) -> int:
    """Return whole tokens for `128k`, `1M` or a plain number of 1 or more; ValueError for anything else."""
    complaint = "must be a number of tokens, such as 131072, 128k or 1M"
    if isinstance(value, int) and not isinstance(value, bool):
        amount = Decimal(value)
    else:
        amount = _parse(value, _TOKENS, complaint)
    if amount < 1 or amount != int(amount):
        raise ValueError(complaint)
    return int(amount)


def _plain(amount: Decimal) -> str:
    return format(amount.normalize(), "f")


def _written_duration(seconds: float) -> str:
    return f"{_plain(Decimal(repr(seconds)))}s"


def _written_period(seconds: float) -> str:
    return f"{_plain(Decimal(repr(seconds)) / 86400)}d"


def _written_size(count: int) -> str:
    return f"{count}B"


def _written_share(fraction: float) -> str:
    return f"{_plain(Decimal(repr(fraction)) * 100)}%"


def _text(units: dict[str, Decimal], *examples: str) -> WithJsonSchema:
    number = r"\d{1,12}(\.\d{1,6})?"
    return WithJsonSchema(
        {"type": "string", "pattern": f"^{number}({'|'.join(units)})$", "examples": list(examples)}
    )


Duration = Annotated[
    float,
    BeforeValidator(duration),
    PlainSerializer(_written_duration, when_used="json"),
    _text(_SECONDS, "250ms", "30s", "10m", "1h"),
]
Period = Annotated[
    float,
    BeforeValidator(period),
    PlainSerializer(_written_period, when_used="json"),
    _text(_LONG, "12h", "90d"),
]
Size = Annotated[
    int,
    BeforeValidator(size),
    PlainSerializer(_written_size, when_used="json"),
    _text(_BYTES, "64KiB", "32MiB"),
]
Share = Annotated[
    float,
    BeforeValidator(percent),
    PlainSerializer(_written_share, when_used="json"),
    _text(_SHARES, "10%"),
]
Tokens = Annotated[
    int,
    BeforeValidator(tokens),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": r"^\d{1,12}(\.\d{1,6})?(k|M)$", "examples": ["128k", "1M"]},
            ]
        }
    ),
]

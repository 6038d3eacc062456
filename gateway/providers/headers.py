"""What upstreams say about their limits in response headers."""

import re
from collections.abc import Iterable
from email.utils import parsedate_to_datetime

from policies.service import Headroom

RawHeaders = Iterable[tuple[bytes, bytes]]

_DURATION_PART = re.compile(rb"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_LONGEST_WAIT = 366 * 86400.0
"""Seconds. Whoever says more than that means something else, or no good."""
_SECONDS = {b"ms": 0.001, b"s": 1.0, b"m": 60.0, b"h": 3600.0, b"d": 86400.0}


def retry_after(headers: RawHeaders, wall_time: float) -> float | None:
    """Seconds to wait, from ``retry-after-ms`` or ``retry-after`` (seconds or an HTTP date), a year at most.

    None where the upstream doesn't say or what it says can't be read.
    """
    wait = _wait(headers, wall_time)
    return None if wait is None else min(wait, _LONGEST_WAIT)


def _wait(headers: RawHeaders, wall_time: float) -> float | None:
    plain: bytes | None = None
    for name, value in headers:
        lowered = name.lower()
        if lowered == b"retry-after-ms" and (millis := _number(value)) is not None:
            return millis / 1000
        if lowered == b"retry-after":
            plain = value
    if plain is None:
        return None
    seconds = _number(plain)
    if seconds is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(plain.decode("latin-1")).timestamp() - wall_time)
    except ValueError:
        return None


def headroom(headers: RawHeaders) -> Headroom | None:
    """What is left of the limits, from OpenAI's ``x-ratelimit-*``; None where the upstream doesn't say."""
    said = {name.lower(): value for name, value in headers if name[:12].lower() == b"x-ratelimit-"}
    if not said:
        return None
    return Headroom(
        remaining_requests=_count(said.get(b"x-ratelimit-remaining-requests")),
        reset_requests=_duration(said.get(b"x-ratelimit-reset-requests")),
        remaining_tokens=_count(said.get(b"x-ratelimit-remaining-tokens")),
        reset_tokens=_duration(said.get(b"x-ratelimit-reset-tokens")),
    )


def _number(value: bytes) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _count(value: bytes | None) -> int | None:
    number = None if value is None else _number(value)
    return None if number is None else int(number)


def _duration(value: bytes | None) -> float | None:
    """Read "12ms", "6m0s" or plain seconds."""
    if value is None:
        return None
    parts = _DURATION_PART.findall(value)
    if parts:
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    return _number(value)

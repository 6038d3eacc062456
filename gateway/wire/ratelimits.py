"""What is left of a caller's limits, as OpenAI's headers tell it: x-ratelimit-limit-requests and the like.

Of several limits of a kind the binding one is told, which lets the fewest further calls in.
"""

import math
from collections.abc import Sequence

from policies.ratelimit import Dimension
from policies.service import Allowance

Header = tuple[bytes, bytes]

_KINDS: dict[str, str] = {
    Dimension.REQUESTS: "requests",
    Dimension.TOKENS: "tokens",
    Dimension.INPUT: "tokens",
    Dimension.OUTPUT: "tokens",
}
_NAMES = {
    kind: tuple(f"x-ratelimit-{what}-{kind}".encode() for what in ("limit", "remaining", "reset"))
    for kind in ("requests", "tokens")
}


def headers(allowances: Sequence[Allowance]) -> list[Header]:
    """The headers for what is left, the binding limit first in ``allowances``."""
    found: list[Header] = []
    told: set[str] = set()
    for allowance in allowances:
        kind = _KINDS.get(allowance.dimension)
        if kind is None or kind in told:
            continue
        told.add(kind)
        limit, remaining, reset = _NAMES[kind]
        found.append((limit, b"%d" % allowance.limit))
        found.append((remaining, b"%d" % allowance.remaining))
        found.append((reset, duration(allowance.reset)))
    return found


def duration(seconds: float) -> bytes:
    """A time as OpenAI writes it, in Go's manner and to the millisecond: 120ms, 8.64s, 6m0s, 14h3m20s."""
    millis = math.ceil(seconds * 1000 - 1e-6)
    whole, part = divmod(millis, 1000)
    if not whole:
        return b"%dms" % part if part else b"0s"
    minutes, rest = divmod(whole, 60)
    shown = b"%d" % rest
    if part:
        shown += (b".%03d" % part).rstrip(b"0")
    if not minutes:
        return shown + b"s"
    hours, minutes = divmod(minutes, 60)
    return b"%dh%dm%ss" % (hours, minutes, shown) if hours else b"%dm%ss" % (minutes, shown)

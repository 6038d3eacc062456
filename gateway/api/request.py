"""Reading a request: its id, its key, its body."""

import random
import re

from starlette.types import Receive, Scope

from policies.errors import PayloadTooLarge

_SOUND_ID = re.compile(rb"[\w.:-]{1,128}")
_BEARER = b"bearer "


class ClientGone(Exception):
    """The client closed its connection before its request was whole."""


def request_id(scope: Scope, rng: random.Random) -> str:
    """The client's own x-request-id where it sent a sound one, a new one otherwise."""
    given = header(scope, b"x-request-id")
    if given is not None and _SOUND_ID.fullmatch(given):
        return given.decode("ascii")
    return f"req_{rng.getrandbits(96):024x}"


def bearer(scope: Scope) -> str | None:
    """The secret of ``Authorization: Bearer``; None where there is none."""
    value = header(scope, b"authorization")
    if value is None or value[:7].lower() != _BEARER:
        return None
    return value[7:].strip().decode("latin-1")


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of this lower-case name."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body. Raises ``PayloadTooLarge`` over ``limit`` bytes, and ``ClientGone``."""
    length = header(scope, b"content-length")
    if length is not None and int(length) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is larger than {limit} bytes, the most that this gateway takes.")

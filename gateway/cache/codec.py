"""Answers as bytes, for the tiers outside the process: checked, so that what was damaged is never served.

    magic, 4 bytes | BLAKE2b of the rest, 16 bytes | Zstandard frame of: facts as a line of JSON, the body

The checksum is over the compressed bytes: nothing that fails it reaches the decompressor. The facts hold
the key, so that bytes which lie under another one's name aren't taken for its own.
"""

from hashlib import blake2b
from typing import NamedTuple

import orjson
import zstandard

from policies.cache.answer import CachedAnswer
from policies.service import Usage

_MAGIC = b"TGA\x01"
_DIGEST = 16
_LEVEL = 3


class Corrupt(Exception):
    """These bytes aren't the answer that was written."""


class Kept(NamedTuple):
    """An answer, and until when it is of use, in seconds since the epoch."""

    answer: CachedAnswer
    until: float


def encode(kept: Kept) -> bytes:
    """The bytes of an answer."""
    answer = kept.answer
    facts = orjson.dumps(
        {
            "key": answer.key,
            "scope": answer.scope,
            "model": answer.model,
            "upstream": answer.upstream,
            "served_model": answer.served_model,
            "created": answer.created,
            "until": kept.until,
            "usage": answer.usage,
        }
    )
    frame = zstandard.ZstdCompressor(level=_LEVEL).compress(b"%b\n%b" % (facts, answer.body))
    return _MAGIC + _digest(frame) + frame


def decode(data: bytes, key: str) -> Kept:
    """The answer that ``data`` holds under ``key``. Raises Corrupt."""
    frame = data[len(_MAGIC) + _DIGEST :]
    if data[: len(_MAGIC)] != _MAGIC or data[len(_MAGIC) : len(_MAGIC) + _DIGEST] != _digest(frame):
        raise Corrupt
    try:
        line, _, body = zstandard.ZstdDecompressor().decompress(frame).partition(b"\n")
        facts = orjson.loads(line)
        until = facts.pop("until")
        usage = facts.pop("usage")
        answer = CachedAnswer(**facts, body=body, usage=None if usage is None else Usage(**usage))
    except (zstandard.ZstdError, ValueError, TypeError, KeyError) as error:  # another release wrote it
        raise Corrupt from error
    if answer.key != key:
        raise Corrupt
    return Kept(answer, until)


def _digest(frame: bytes) -> bytes:
    return blake2b(frame, digest_size=_DIGEST).digest()

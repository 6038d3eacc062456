"""Writes answers into the cache's file as fast as it can, until it is killed.

python -m tests.kit.cache_writer FILE SEED. Each body follows from its key and its length, so that whoever
reads it can tell; it doesn't compress, so that writes are long.
"""

import asyncio
import itertools
import sys
from hashlib import sha256
from pathlib import Path
from random import Random

from gateway.cache.codec import Kept
from gateway.cache.disk import DiskTier
from policies.cache.answer import CachedAnswer
from tests.kit.upstream import RecordingMeter

KEYS = 400
KEEP = 1e6
CAPACITY = 4_000_000


def key(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()


def body(name: str, length: int) -> bytes:
    return Random(name).randbytes(length)


def open_tier(path: Path) -> DiskTier:
    return DiskTier(path, CAPACITY, wall_time=lambda: 1e9, meter=RecordingMeter())


async def main(path: Path, seed: int) -> None:
    rng = Random(seed)
    tier = open_tier(path)
    for count in itertools.count():
        name = key(rng.randrange(KEYS))
        data = body(name, rng.randrange(64, 60_000))
        await tier.put(Kept(CachedAnswer(name, "=t", "m", "up", "m", 1e9, data), 1e9 + KEEP))
        if count == 0:
            print("writing", flush=True)  # noqa: T201 - what the killer waits for


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))

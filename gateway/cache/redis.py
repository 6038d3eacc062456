"""The tier that replicas share: answers in Redis or Valkey, compressed, each with its end.

How much it may take is the server's business: ``maxmemory`` with ``maxmemory-policy allkeys-lfu``, which also
evicts by frequency. A server that may evict nothing has other things to keep, such as the counts of limits:
it is given answers up to three quarters of its memory. A server that doesn't answer is let alone for a
second, so that an outage costs calls nothing but their hits. One that is only slow to read is still written
to: no call waits for that, and what isn't written another replica asks an upstream for.
"""

import asyncio
from collections.abc import Callable

from gateway.cache.codec import Corrupt, Kept, decode, encode
from gateway.cache.purges import Purge
from gateway.cache.tiers import TierSize
from gateway.stores.redis.connect import AWAY, Client
from gateway.stores.redis.patience import in_time
from policies.facts import CacheDropped
from policies.ports import Clock, Meter

NAME = "redis"
_PREFIX = "tidegate:answer:"
_REST = 1.0
_PATIENCE = 0.25
"""What a call waits for an answer at most, in seconds."""
_SCAN = 500
_LOOK = 5.0
_SHARE = 0.75


class RedisTier:
    """Answers under tidegate:answer:KEY. Larger ones than ``max_entry`` bytes, compressed, aren't written."""

    name = NAME

    def __init__(
        self,
        client: Client,
        *,
        max_entry: int,
        clock: Clock,
        wall_time: Callable[[], float],
        meter: Meter,
    ) -> None:
        self._client = client
        self._max_entry = max_entry
        self._clock = clock
        self._wall_time = wall_time
        self._meter = meter
        self._away_until = self._slow_until = 0.0
        self._look_at = 0.0
        self._full = False

    async def get(self, key: str) -> Kept | None:
        if self._clock.now() < max(self._away_until, self._slow_until):
            return None
        try:
            data = await in_time(self._client.get(_PREFIX + key), _PATIENCE, self._clock)
            return None if data is None else decode(_bytes(data), key)
        except Corrupt:
            self._meter.emit(CacheDropped(NAME, "corrupt"))
            await self._unlink(key)
        except TimeoutError:
            self._meter.emit(CacheDropped(NAME, "unreachable"))
            self._slow_until = self._clock.now() + _REST
        except AWAY:
            self._rest()
        return None

    async def put(self, kept: Kept) -> None:
        left = kept.until - self._wall_time()
        if left <= 0 or self._clock.now() < self._away_until:
            return
        if await self._is_full():
            self._meter.emit(CacheDropped(NAME, "full"))
            return
        data = encode(kept)
        if len(data) > self._max_entry:
            self._meter.emit(CacheDropped(NAME, "oversized"))
            return
        try:
            await self._client.set(_PREFIX + kept.answer.key, data, px=max(1, round(left * 1000)))
        except AWAY:
            self._rest()

    async def discard(self, purge: Purge) -> None:
        try:
            found = [key async for key in self._client.scan_iter(match=_PREFIX + "*", count=_SCAN)]
            for first in range(0, len(found), _SCAN):
                keys = found[first : first + _SCAN]
                covered = await self._covered(keys, purge)
                await asyncio.gather(*(self._client.unlink(key) for key in covered))
        except AWAY:
            self._rest()

    async def size(self) -> TierSize | None:
        """Not known: the server may hold other things, and counting keys takes a scan."""
        return None

    async def close(self) -> None:
        """The client is the gateway's."""

    async def _is_full(self) -> bool:
        """Whether more answers would take room that the server needs; looked at every few seconds."""
        if self._clock.now() >= self._look_at:
            self._look_at = self._clock.now() + _LOOK
            try:
                told = await self._client.info("memory")
            except AWAY:
                self._rest()
                return False
            most, used = told.get("maxmemory", 0), told.get("used_memory", 0)
            keeps_all = told.get("maxmemory_policy") == "noeviction"
            self._full = keeps_all and 0 < most * _SHARE < used
        return self._full

    async def _covered(self, keys: list[bytes], purge: Purge) -> list[bytes]:
        datas = await asyncio.gather(*(self._client.get(key) for key in keys))
        return [
            key
            for key, data in zip(keys, datas, strict=True)
            if data is not None and _is_covered(key, _bytes(data), purge)
        ]

    async def _unlink(self, key: str) -> None:
        try:
            await self._client.unlink(_PREFIX + key)
        except AWAY:
            self._rest()

    def _rest(self) -> None:
        self._meter.emit(CacheDropped(NAME, "unreachable"))
        self._away_until = self._clock.now() + _REST


def _is_covered(key: bytes, data: bytes, purge: Purge) -> bool:
    """Whether an entry is to go; one that can't be read is."""
    try:
        kept = decode(data, key.decode().removeprefix(_PREFIX))
    except Corrupt:
        return True
    return purge.covers(kept.answer)


def _bytes(data: bytes | str) -> bytes:
    """What the client, which decodes nothing, may say to be text."""
    return data if isinstance(data, bytes) else data.encode()

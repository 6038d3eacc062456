"""Leases in Redis: which replica asks for what all of them want."""

import asyncio

from gateway.stores.redis.connect import AWAY, Client
from gateway.stores.redis.patience import in_time
from policies.ports import Clock

_PREFIX = "tidegate:lease:"
_PATIENCE = 0.25
_IF_OWN = "if redis.call('GET', KEYS[1]) == ARGV[1] then return {} end return 0"
_RELEASE = _IF_OWN.format("redis.call('DEL', KEYS[1])")
_RENEW = _IF_OWN.format("redis.call('PEXPIRE', KEYS[1], ARGV[2])")


class RedisLeases:
    """``owner`` is a name that no other process has. What isn't renewed in ``ttl`` seconds is free again.

    Run ``keep`` as a task beside the layers. Without Redis everybody may ask.
    """

    def __init__(self, client: Client, *, owner: str, clock: Clock, ttl: float = 10.0) -> None:
        self._client = client
        self._owner = owner
        self._clock = clock
        self._ttl = ttl
        self._held: set[str] = set()

    async def acquire(self, key: str) -> bool:
        asked = self._client.set(_PREFIX + key, self._owner, nx=True, px=self._milliseconds)
        try:
            taken = await in_time(asked, _PATIENCE, self._clock)
        except AWAY:
            taken = True  # it may have been given for all that, and nobody else shall wait for it
        except asyncio.CancelledError:
            self._held.add(key)  # for the same reason: who asked gives it back
            raise
        if taken:
            self._held.add(key)
        return bool(taken)

    async def release(self, key: str) -> None:
        if key not in self._held:
            return
        self._held.discard(key)
        try:
            await self._client.eval(_RELEASE, 1, _PREFIX + key, self._owner)
        except AWAY:
            return  # it expires

    async def keep(self) -> None:
        """Renew what is held, until cancelled."""
        while True:
            await self._clock.sleep(self._ttl / 3)
            for key in list(self._held):
                try:
                    await self._client.eval(_RENEW, 1, _PREFIX + key, self._owner, str(self._milliseconds))
                except AWAY:
                    break

    @property
    def _milliseconds(self) -> int:
        return round(self._ttl * 1000)

"""How many processes share the limits: each leaves a sign of life in the store every second.

While the store is away each of them counts its own part of every limit, and so has to know how many
parts there are.
"""

from contextlib import suppress
from importlib.resources import files

from gateway.stores.redis.connect import AWAY, Client
from policies.ports import Clock

_KEY = "tidegate:replicas"
_TTL = 15


class Replicas:
    """Called, it tells the last known number of processes, ``at_least`` those that are known of anyway.

    Run ``keep`` as a task. ``owner`` is a name that no other process has.
    """

    def __init__(self, client: Client, owner: str, *, at_least: int, clock: Clock) -> None:
        self._client = client
        self._owner = owner
        self._at_least = at_least
        self._clock = clock
        self._counted = 0
        self._script = (files(__package__) / "replicas.lua").read_text("utf-8")

    def __call__(self) -> int:
        return max(self._at_least, self._counted)

    async def keep(self, every: float = 1.0) -> None:
        """Give a sign of life and count those of others ``every`` so many seconds, until cancelled."""
        while True:
            with suppress(*AWAY):  # what was known stays
                self._counted = await self._client.eval(self._script, 1, _KEY, self._owner, _TTL)
            await self._clock.sleep(every)

    async def leave(self) -> None:
        """Be counted no more."""
        with suppress(*AWAY):  # it is forgotten soon anyway
            await self._client.zrem(_KEY, self._owner)

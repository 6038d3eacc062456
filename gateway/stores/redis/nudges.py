"""Word of changes by Redis pub/sub: whoever changed something tells the other processes to look at once.

A message may be lost, with the server or on its way, so it only hurries those who look every so often
anyway. What has changed stands in the database, and nowhere else.
"""

from collections.abc import Callable
from contextlib import suppress

from gateway.stores.redis.connect import AWAY, Client, listener
from gateway.stores.redis.patience import in_time
from policies.ports import Clock

_CHANNEL = "tidegate:changes"
_REST = 1.0


class Nudges:
    """``owner`` is a name that no other process has: nobody hears their own word.

    After ``silence`` seconds the server is asked whether it is still there, and given as long to answer.
    Whoever changed something waits ``patience`` seconds for it at most.
    """

    def __init__(
        self, client: Client, owner: str, *, clock: Clock, silence: float = 15.0, patience: float = 0.25
    ) -> None:
        self._client = client
        self._owner = owner.encode()
        self._clock = clock
        self._silence = silence
        self._patience = patience

    async def give(self) -> None:
        """Tell the others that something has changed."""
        with suppress(*AWAY):  # they will find it by themselves
            said = self._client.execute_command("PUBLISH", _CHANNEL, self._owner)
            await in_time(said, self._patience, self._clock)

    async def hear(self, heard: Callable[[], object]) -> None:
        """Call ``heard`` when another process has changed something, or may have, until cancelled."""
        while True:
            with suppress(*AWAY):
                await self._listen(heard)
            await self._clock.sleep(_REST)

    async def _listen(self, heard: Callable[[], object]) -> None:
        """Listen until the server is gone. What was said before is not heard, so that there may be news."""
        async with await listener(self._client) as messages:
            await messages.subscribe(_CHANNEL)
            asked = False
            while (message := await messages.get_message(timeout=self._silence)) is not None or not asked:
                asked = message is None
                if message is None:
                    await messages.ping()
                elif message["type"] != "pong" and message["data"] != self._owner:
                    heard()

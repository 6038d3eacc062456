"""What this worker follows: changes in the database, whichever process made them.

Looked for every so often, and at once when another process says that it has changed something. The
looking is what counts: a word may be lost, and where no Redis is shared there are none.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from gateway.stores.database import AWAY, reason
from gateway.stores.redis import Nudges
from policies.ports import Clock

_LOG = logging.getLogger(__name__)
_PATIENCE = 10.0

Read = Callable[[], Awaitable[None]]


class Changes:
    """Reads a subject again when its revision has changed. Run ``keep`` as a task.

    ``revisions`` gives the revision of each subject, ``read`` has who reads a subject; ``always`` is read
    each time, since it may be kept elsewhere.
    """

    def __init__(
        self,
        revisions: Callable[[], Awaitable[Mapping[str, int]]],
        read: Mapping[str, Read],
        *,
        always: Read,
        nudges: Nudges | None,
        clock: Clock,
    ) -> None:
        self._revisions = revisions
        self._read = read
        self._always = always
        self._nudges = nudges
        self._clock = clock
        self._known: Mapping[str, int] = {}
        self._turn = asyncio.Lock()
        self._nudged = asyncio.Event()

    async def follow(self) -> None:
        """Read what has changed since the last time; at the first, everything."""
        async with self._turn:
            revisions = await self._revisions()
            changed = {
                read: None
                for name, read in self._read.items()
                if revisions.get(name) != self._known.get(name)
            }
            for read in changed:
                await read()
            await self._always()
            self._known = revisions

    async def tell(self) -> None:
        """What this process changed holds here at once, and elsewhere as soon as they hear of it."""
        giving = () if self._nudges is None else (self._nudges.give(),)
        try:
            await asyncio.gather(*giving, self.follow())
        except AWAY as error:
            self._nudged.set()
            _LOG.warning(
                "what was changed is not known here yet, the database could not be read: %s", reason(error)
            )

    async def keep(self, every: float) -> None:
        """Follow, at the latest every so many seconds, until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._nudges is not None:
                group.create_task(self._nudges.hear(self._nudged.set))
            group.create_task(self._keep_looking(every))

    async def _keep_looking(self, every: float) -> None:
        while True:
            with suppress(TimeoutError):
                async with self._clock.timeout_at(self._clock.now() + every):
                    await self._nudged.wait()
            self._nudged.clear()
            try:
                async with self._clock.timeout_at(self._clock.now() + _PATIENCE):
                    await self.follow()
            except AWAY as error:
                _LOG.warning("the database could not be read, what is known stays: %s", reason(error))

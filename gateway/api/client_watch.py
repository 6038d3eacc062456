"""Hearing at once that a client is gone, while its answer is still on the way."""

import asyncio

from starlette.types import Receive

_MOMENT = 0.02


class ClientWatch:
    """Cancels ``task`` when the client disconnects; ``gone`` tells so afterwards.

    It begins to listen after 20 ms: an answer that is there by then needs no second task.
    """

    def __init__(self, receive: Receive, task: asyncio.Task[object]) -> None:
        self.gone = False
        self._receive = receive
        self._task = task
        self._stopped = False
        self._listener: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(_MOMENT, self._begin)

    def stop(self) -> None:
        """Cancel nothing any more: the whole answer is there."""
        self._stopped = True
        self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()

    def _begin(self) -> None:
        self._listener = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._stopped:
            self.gone = True
            self._task.cancel()

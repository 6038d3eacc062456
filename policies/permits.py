"""Permits to use one upstream: the concurrency limit, and those who wait for it in order of arrival.

One object serves every way that leads to the upstream, and every account that shares its quota, so
that what one of them gives back wakes whoever waits longest.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from policies.concurrency import ConcurrencyLimit
from policies.ports import Alarm, AlarmClock


class Permits:
    """Gives out what ``limit`` allows."""

    def __init__(self, limit: ConcurrencyLimit, *, clock: AlarmClock) -> None:
        self.limit = limit
        self._clock = clock
        self._queue: deque[asyncio.Future[float]] = deque()
        self._alarm: Alarm | None = None
        self._listeners: deque[Callable[[], object]] = deque()

    @property
    def waiting(self) -> int:
        """How many calls wait for a permit."""
        return len(self._queue)

    def available(self, now: float) -> bool:
        """Whether a call that enters now is let through at once."""
        return not self._queue and self.limit.available(now)

    def free(self, now: float) -> int:
        """How many calls that enter now are let through at once."""
        return 0 if self._queue else self.limit.free(now)

    def watch(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` when permits may be free that nobody here waits for, until ``unwatch``."""
        self._listeners.append(listener)

    def unwatch(self, listener: Callable[[], object]) -> None:
        """Call it no more."""
        self._listeners.remove(listener)

    def wait(self, now: float) -> float:
        """Seconds until a call is probably let through."""
        return self.limit.wait(now)

    def worth_waiting(self, now: float, patience: float) -> bool:
        """Whether nothing that is known now keeps a permit away for longer than ``patience``.

        A call of little patience has somewhere else to go: it waits for its turn, but sits out no hold-off.
        """
        if self.limit.held_off(now) and patience < self.limit.options.longest_hold_off:
            return False
        return patience > 0 and self.limit.retry_at < now + patience

    def take(self, now: float) -> float | None:
        """Take a permit: the time it was given, or None where there is none."""
        if not self.available(now):
            return None
        self.limit.sent(now)
        return now

    async def wait_for(self, now: float, patience: float) -> float:
        """Wait in turn for a permit: the time it was given. Raises TimeoutError when patience ends."""
        turn: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        self._arm(now)
        try:
            async with self._clock.timeout_at(now + patience):
                return await turn
        except BaseException:
            if turn in self._queue:
                self._queue.remove(turn)
            elif not turn.cancelled():  # given a permit and cancelled in the same moment
                self.give_back(turn.result(), answered=False, tokens=0)
            raise

    def give_back(self, sent_at: float, *, answered: bool, tokens: int) -> None:
        """The attempt is over."""
        self.limit.ended(self._clock.now(), sent_at, answered, tokens)
        self.grant()

    def grant(self) -> None:
        """Give what permits there are to those who wait, then tell those who watch, in turn."""
        if self._queue:
            self._serve()
        if self._listeners and not self._queue:
            self._listeners.rotate(-1)
            for listener in tuple(self._listeners):
                listener()

    def _serve(self) -> None:
        now = self._clock.now()
        while self._queue and self.limit.available(now):
            turn = self._queue.popleft()
            if not turn.done():
                self.limit.sent(now)
                turn.set_result(now)
        self._arm(now)

    def _arm(self, now: float) -> None:
        """Look again when the hold-off ends: nothing else may happen until then."""
        if self._alarm is None and self._queue and self.limit.retry_at > now:
            self._alarm = self._clock.call_at(self.limit.retry_at, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self.grant()

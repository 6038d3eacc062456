"""A watch: cancels a task that waits for too long, in one wait or in many.

``asyncio.timeout`` costs several times as much and can be used once. A watch has one alarm, re-armed only
when it goes off early, as in the lazy timers of Varghese and Lauck, "Hashed and Hierarchical Timing
Wheels" (1987): a wait that ends in time costs one reading of the clock.
"""

import asyncio

from policies.ports import Alarm, AlarmClock

_AGAIN = 0.1
"""While nobody waits the alarm looks again after so many seconds at the soonest."""


class Watch:
    """Cancels the task that made it once a wait is longer than what is ``left``, in seconds.

    ``since`` is when the task began to wait, None while it doesn't.
    """

    __slots__ = ("_alarm", "_cancelling", "_clock", "_due", "_expired", "_task", "left", "now", "since")

    def __init__(self, clock: AlarmClock, left: float) -> None:
        self._clock = clock
        self.now = clock.now
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task else 0
        self._expired = False
        self.since: float | None = None
        self.left = left
        self._due = due = self.now() + left
        self._alarm: Alarm | None = clock.call_at(due, self._ring)

    def allow(self, left: float) -> None:
        """Let the waits from now on take ``left`` seconds."""
        self.left = left
        due = self.now() + left
        if due < self._due:
            self.close()
            self._arm(due)

    def begin(self) -> None:
        """The task is about to wait."""
        self.since = self.now()

    def stop(self) -> bool:
        """It waits no longer: whether it was cancelled by this watch and by nobody else."""
        self.since = None
        if not self._expired or self._task is None:
            return False
        self._expired = False
        return self._task.uncancel() <= self._cancelling

    def close(self) -> None:
        """There will be no more waits."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _arm(self, due: float) -> None:
        self._due = due
        self._alarm = self._clock.call_at(due, self._ring)

    def _ring(self) -> None:
        if self.since is None:
            self._arm(self._due + max(self.left, _AGAIN))
        elif self._due < self.since + self.left:
            self._arm(self.since + self.left)
        elif self._task is not None:
            self._alarm = None
            self._expired = True
            self._task.cancel()

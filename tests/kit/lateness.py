"""How late a machine lets somebody be who has nothing else to do, which a test of time forgives it."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.kit.processes import eventually

_PAUSE = 0.02


class Lateness:
    """Measures while it is entered. ``total`` and ``worst`` are in seconds."""

    def __init__(self) -> None:
        self.total = self.worst = 0.0
        self._over = threading.Event()
        self._watching = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._watching.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._watching.join()

    def _watch(self) -> None:
        while True:
            began = time.monotonic()
            if self._over.wait(_PAUSE):
                return
            late = time.monotonic() - began - _PAUSE
            self.total += late
            self.worst = max(self.worst, late)


def promised(condition: Callable[[], object], within: float) -> None:
    """Wait until ``condition`` holds: ``within`` so many seconds, and those that the machine was late."""
    with Lateness() as lateness:
        began = time.monotonic()
        eventually(condition)
        took = time.monotonic() - began
    assert took - lateness.total < within

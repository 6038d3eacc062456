"""An event loop whose clock jumps to the next timer as soon as nothing else is ready.

Code that waits an hour is tested in milliseconds and in a fixed order; nothing in a test sleeps.
The loop must not do network I/O: a wait on a socket would be skipped.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """Reports no wait: the time that it should have waited is added to the loop's clock."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            msg = "deadlock in virtual time: no timer is set and nothing is ready"
            raise RuntimeError(msg)
        self.elapsed += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at second 0; ``time()`` moves only when every task waits."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._jumping.elapsed


class LoopClock:
    """The running loop's time: under a ``VirtualTimeLoop`` everything that asks it is in virtual time."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def timeout_at(self, when: float | None) -> asyncio.Timeout:
        return asyncio.timeout_at(when)

    def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_at(when, callback)


class PatientClock(LoopClock):
    """Whoever is waited for has as long as it takes: a busy machine's server isn't taken for a dead one."""

    def timeout_at(self, when: float | None) -> asyncio.Timeout:
        del when
        return asyncio.timeout(None)


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` to its end in virtual time and return its result."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)

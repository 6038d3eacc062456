"""Child processes that are kept running: started, watched, restarted with backoff, stopped."""

import asyncio
import logging
import random
import signal
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from policies.ports import Clock

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RestartOptions:
    """How a child that died is started again; times in seconds.

    The n-th restart in a row waits ``base * 2**(n - 1)``, at most ``cap``, with up to 20% jitter. A child
    that ran for ``settled`` counts as healthy again.
    """

    base: float = 0.5
    cap: float = 30.0
    settled: float = 60.0

    def delay(self, failures: int, rng: random.Random) -> float:
        """Seconds to wait before the restart after this many failures in a row."""
        return float(min(self.cap, self.base * 2.0 ** (failures - 1)) * rng.uniform(1.0, 1.2))


@dataclass(slots=True)
class Child:
    """One program and its process, in a session of its own: a Ctrl-C reaches only the supervisor.

    ``on_exit`` hears the id of each process that ended. The signals in ``held`` wait until the program
    unblocks them: one that comes before its handler is there would end it.
    """

    name: str
    argv: Sequence[str]
    clock: Clock
    rng: random.Random
    env: Mapping[str, str] | None = None
    pass_fds: Sequence[int] = ()
    options: RestartOptions = field(default_factory=RestartOptions)
    on_exit: Callable[[int], None] | None = None
    held: Collection[signal.Signals] = ()
    _process: asyncio.subprocess.Process | None = None
    _stopping: bool = False
    _keeper: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the program, and start it again whenever it ends, until ``stop``."""
        self._keeper = asyncio.create_task(self._keep_running())

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if one runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def stop(self, grace: float) -> None:
        """End the process with SIGTERM, after ``grace`` seconds with SIGKILL."""
        self._stopping = True
        self.signal(signal.SIGTERM)
        try:
            async with self.clock.timeout_at(self.clock.now() + grace):
                if self._process is not None:
                    await self._process.wait()
        except TimeoutError:
            _LOG.warning("%s did not stop in %.0f s: killed", self.name, grace)
            self.signal(signal.SIGKILL)
        finally:
            if self._keeper is not None:
                self._keeper.cancel()  # which ends a process that is just being started
                await asyncio.wait([self._keeper])

    async def _keep_running(self) -> None:
        failures = 0
        while not self._stopping:
            started = self.clock.now()
            try:
                end = f"ended with code {await self._run()}"
            except OSError as error:  # the machine has no memory or no process left, for now
                end = f"could not be started ({error})"
            if self._stopping:
                return
            failures = 1 if self.clock.now() - started >= self.options.settled else failures + 1
            delay = self.options.delay(failures, self.rng)
            _LOG.warning("%s %s, starting it again in %.1f s", self.name, end, delay)
            await self.clock.sleep(delay)

    async def _run(self) -> int:
        """Run the program once; the code that it ends with. Raises OSError."""
        signal.pthread_sigmask(signal.SIG_BLOCK, self.held)  # which the child inherits
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                *self.argv, env=self.env, pass_fds=self.pass_fds, start_new_session=True
            )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self.held)
        code = await process.wait()
        if self.on_exit is not None:
            self.on_exit(process.pid)
        return code

"""What policies need from the outside, as protocols. ``gateway`` provides the real ones."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from policies.facts import Fact
from policies.ratelimit import Bucket, Charge, Verdict


class Clock(Protocol):
    """Time as an argument: policies read and wait on this clock and on no other."""

    def now(self) -> float:
        """Seconds on a monotonic scale with an arbitrary origin."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``."""
        ...

    def timeout_at(self, when: float | None) -> AbstractAsyncContextManager[object]:
        """Cancel the body at ``when`` and raise TimeoutError on leaving; None sets no limit."""
        ...


class Meter(Protocol):
    """Hears what policies decided. Returns at once and never raises."""

    def emit(self, fact: Fact, /) -> None: ...


class Alarm(Protocol):
    """A callback that is yet to come."""

    def cancel(self) -> None: ...


class AlarmClock(Clock, Protocol):
    """A clock that also calls back, for policies that watch many waits and can't spend a task on each."""

    def call_at(self, when: float, callback: Callable[[], object], /) -> Alarm:
        """Call ``callback`` at ``when``, from the event loop."""
        ...


class BucketStore(Protocol):
    """Keeps the buckets of rate limits. ``policies.memory`` is the specification of what it does."""

    async def take(self, holder: str, charges: Sequence[Charge]) -> Verdict:
        """Make all of the charges or none. Slots are taken in the name of ``holder``, unique to a call."""
        ...

    def settle(self, holder: str, charges: Sequence[Charge], taken_at: float) -> None:
        """Correct what was taken at ``taken_at``; a slot's charge, of -1, gives it back.

        Returns at once and never raises: it is called on the way out, however that came about.
        """
        ...

    async def renew(self, holder: str, buckets: Sequence[Bucket]) -> None:
        """Keep the holder's slots for another ``ttl``."""
        ...

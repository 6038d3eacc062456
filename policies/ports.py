"""What policies need from the outside, as protocols. ``gateway`` provides the real ones."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

from policies.facts import Fact
from policies.ratelimit import Bucket, Charge, Verdict
from policies.service import Call, Estimate, Usage

if TYPE_CHECKING:
    from policies.cache.answer import CachedAnswer, Near


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


class CacheStore(Protocol):
    """Keeps answers. ``policies.cache.memory`` is the specification of what it does."""

    async def get(self, key: str) -> "tuple[CachedAnswer, str] | None":
        """The answer of this fingerprint, however old, with the name of the tier that held it.

        Never raises; what is corrupt, purged or out of reach isn't there.
        """
        ...

    def at_hand(self, key: str) -> "tuple[CachedAnswer, str] | None":
        """The same, of what needn't be waited for."""
        ...

    def put(self, answer: "CachedAnswer", keep: float) -> None:
        """Keep an answer for ``keep`` seconds: in this process at once, everywhere else soon."""
        ...

    async def settled(self, key: str) -> None:
        """Return once the other replicas can see what was last put under ``key``, or never will."""
        ...


class Leases(Protocol):
    """Who may ask for what all replicas want. A lease that isn't given back expires by itself."""

    async def acquire(self, key: str) -> bool:
        """Take the lease; False while another replica has it. True where nobody can say.

        Who is cancelled while asking may have it all the same, and gives it back.
        """
        ...

    async def release(self, key: str) -> None:
        """Give it back."""
        ...


class SemanticIndex(Protocol):
    """Finds an answer to another prompt that means the same."""

    async def nearest(self, call: Call, scope: str) -> "Near | None":
        """An answer within ``scope`` that is good enough for this call. Never raises."""
        ...

    def learn(self, call: Call, answer: "CachedAnswer") -> None:
        """Hear of a call that an upstream has answered completely. Returns at once, never raises."""
        ...


class Estimates(Protocol):
    """What calls will take, before it is counted."""

    def __call__(self, call: Call, /) -> Estimate:
        """What the call will take."""
        ...

    def learn(self, call: Call, usage: Usage, /) -> None:
        """It took this."""
        ...

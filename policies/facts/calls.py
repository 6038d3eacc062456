"""Facts of calls and of the attempts that they come to."""

from policies.record import record
from policies.service import Attempt, CacheStatus, Call, Operation, Usage


@record
class CallRefused:
    """A request was turned away before it became a call; ``outcome`` is the name of the error's class."""

    operation: Operation
    outcome: str


@record
class CallStarted:
    """A call was taken in."""

    call: Call


@record
class CallFinished:
    """A call is over: ``outcome`` is "ok", "cancelled" or the name of the error's class.

    ``duration`` and ``first_event`` are seconds since the call's arrival. ``cached`` is what the cache did.
    """

    call: Call
    outcome: str
    duration: float
    first_event: float | None
    usage: Usage | None
    upstream: str | None
    served_model: str | None
    cached: CacheStatus | None = None


@record
class AttemptFinished:
    """One upstream's part in a call is over."""

    call: Call
    attempt: Attempt

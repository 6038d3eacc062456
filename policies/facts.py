"""Facts that policies emit as they decide; metrics and the access log subscribe to them."""

from dataclasses import dataclass

from policies.service import Attempt, Call, Usage


@dataclass(frozen=True, slots=True)
class CallStarted:
    """A call was taken in."""

    call: Call


@dataclass(frozen=True, slots=True)
class CallFinished:
    """A call is over: ``outcome`` is "ok", "cancelled" or the name of the error's class.

    ``duration`` and ``first_event`` are seconds since the call's arrival.
    """

    call: Call
    outcome: str
    duration: float
    first_event: float | None
    usage: Usage | None
    upstream: str | None
    served_model: str | None


@dataclass(frozen=True, slots=True)
class AttemptFinished:
    """One upstream's part in a call is over."""

    call: Call
    attempt: Attempt


Fact = CallStarted | CallFinished | AttemptFinished

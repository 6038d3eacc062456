"""Facts that policies emit as they decide; metrics and the access log subscribe to them."""

from dataclasses import dataclass

from policies.service import Attempt, Call, Operation, Usage


@dataclass(frozen=True, slots=True)
class CallRefused:
    """A request was turned away before it became a call; ``outcome`` is the name of the error's class."""

    operation: Operation
    outcome: str


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


@dataclass(frozen=True, slots=True)
class HealthChanged:
    """An upstream's state changed; ``before`` and ``after`` are values of ``HealthState``.

    ``next_probe`` is the time until it is tried again, in seconds, or None when nothing is planned.
    """

    upstream: str
    model: str
    before: str
    after: str
    why: str
    next_probe: float | None


@dataclass(frozen=True, slots=True)
class UpstreamEjected:
    """An upstream is out for ``seconds``; ``count`` is the multiplier that made the time."""

    upstream: str
    model: str
    count: int
    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class ProbeFinished:
    """An active probe is over: ``outcome`` is "ok" or the name of the error's class."""

    upstream: str
    model: str
    kind: str
    outcome: str
    duration: float


@dataclass(frozen=True, slots=True)
class BalancePanicked:
    """Every upstream of a group is out, so that this one was tried before its time."""

    call: Call
    upstream: str


Fact = (
    CallRefused
    | CallStarted
    | CallFinished
    | AttemptFinished
    | HealthChanged
    | UpstreamEjected
    | ProbeFinished
    | BalancePanicked
)

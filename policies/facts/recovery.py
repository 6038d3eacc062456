"""Facts of what is done about failures: other picks, retries, failovers, hedges and rescues."""

from policies.record import record
from policies.service import Call


@record
class BalancePanicked:
    """Every upstream of a group is out, so that this one was tried before its time."""

    call: Call
    upstream: str


@record
class RetryScheduled:
    """A failed attempt is followed by another one after ``wait`` seconds."""

    call: Call
    failure: str
    upstream: str | None
    wait: float


@record
class RetryRefused:
    """A failed attempt would have been retried, but the retry budget is used up."""

    call: Call
    failure: str
    upstream: str | None


@record
class FailedOver:
    """A step of the route failed with ``failure`` and the call goes on to the step named ``target``."""

    call: Call
    failure: str
    target: str


@record
class Hedged:
    """No first event came within ``after`` seconds, so that a second attempt was opened beside the first."""

    call: Call
    after: float


@record
class HedgeFinished:
    """The race is over: ``outcome`` of the hedge is "won", "lost" or the name of its error's class."""

    call: Call
    outcome: str


@record
class StreamRescued:
    """A stream broke with ``failure`` after ``delivered`` characters.

    ``outcome`` is "continued", "restarted", "diverged" (the new text was another one), "unreachable"
    (nobody could take over), "exhausted" (it broke too often) or "refused" (it can't be carried on).
    """

    call: Call
    outcome: str
    failure: str
    delivered: int

"""Facts that policies emit as they decide; metrics and the access log subscribe to them."""

from policies.record import record
from policies.service import Attempt, CacheStatus, Call, Operation, Reply, Usage


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


@record
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


@record
class UpstreamEjected:
    """An upstream is out for ``seconds``; ``count`` is the multiplier that made the time."""

    upstream: str
    model: str
    count: int
    seconds: float
    why: str


@record
class ProbeFinished:
    """An active probe is over: ``outcome`` is "ok" or the name of the error's class."""

    upstream: str
    model: str
    kind: str
    outcome: str
    duration: float


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


@record
class LimitChanged:
    """An upstream's concurrency limit moved.

    ``cause`` is "slow start", "growth", "throttled", "congested" or "ceiling".
    """

    upstream: str
    limit: int
    inflight: int
    cause: str


@record
class AttemptRefused:
    """An attempt wasn't sent: ``gate`` is "limit", "hold-off" or "throttle".

    ``retry_after`` is in seconds.
    """

    call: Call
    upstream: str
    gate: str
    retry_after: float


@record
class TimerExpired:
    """An upstream kept silent: ``timer`` is "first_token", "stall" or "unary", its limit in seconds."""

    call: Call
    upstream: str
    timer: str
    seconds: float


@record
class LimitReached:
    """A call was refused by the limit that ``bucket`` counts; ``retry_after`` is infinite if it never fits.

    ``dimension`` is a value of ``Dimension``, or "outage" where a strict limit couldn't be counted.
    """

    call: Call
    bucket: str
    dimension: str
    retry_after: float


@record
class ReservationSettled:
    """What was reserved for a call was corrected to what it used, both in tokens of input and output."""

    call: Call
    reserved: Usage
    used: Usage


@record
class StoreChanged:
    """The shared store of limits came or went: ``degraded`` means that each replica counts its own share."""

    store: str
    degraded: bool
    why: str


@record
class SettlementLost:
    """A correction couldn't be written, so that the estimate stays charged until the bucket drains."""

    store: str
    why: str


@record
class CallAdmitted:
    """A call that had to wait for its turn goes on; ``waited`` is in seconds.

    ``tier`` is the one that it counts to: ``default`` where its key's isn't known.
    """

    call: Call
    tier: str
    waited: float


@record
class CallShed:
    """A call was told to come back after ``retry_after`` seconds.

    ``reason`` is "late" (more work is ahead than can be waited for), "full" (the queue is), "tier" (a
    higher one needs the room), "deadline" (it would not be met) or "max_wait" (it passed).
    """

    call: Call
    tier: str
    reason: str
    retry_after: float


@record
class CacheAsked:
    """A call passed its route's cache, which did as ``status`` says."""

    call: Call
    status: CacheStatus


@record
class CacheRefreshed:
    """A stale answer was asked for anew, beside the call that was given it.

    ``outcome`` is that of a call; ``reply`` is None where nobody answered.
    """

    call: Call
    outcome: str
    reply: Reply | None


@record
class CallCoalesced:
    """A call is answered with another one's answer: ``among`` is "process" or "replicas".

    ``leader`` is the call that fetches it, where that is in this process.
    """

    call: Call
    among: str
    leader: Call | None = None


@record
class CacheEvicted:
    """A tier of the cache made room for others; ``why`` is "full", "expired" or "purged"."""

    tier: str
    count: int
    why: str


@record
class CacheDropped:
    """A tier of the cache didn't take or give an answer.

    ``why`` is "corrupt", "oversized", "busy" (too much waits to be written), "full" or "unreachable".
    """

    tier: str
    why: str


@record
class PromptEmbedded:
    """An upstream was asked for the vector of a text that ``call`` caused, by itself or among others'.

    ``reply`` is the call's part of it, None where nobody answered; ``outcome`` is that of a call.
    """

    call: Call
    outcome: str
    reply: Reply | None


@record
class SemanticLooked:
    """An answer to a similar prompt was looked for.

    ``result`` is "hit", "explored" (near, and not certain enough), "far", "guarded" (near, and a guard says
    that it is another question), "unsuited" (a call of another kind), "expired" or "busy" (no vector).
    """

    call: Call
    result: str


@record
class SemanticVerified:
    """The stored answer for a similar prompt was compared with the true one; ``given`` if it was a hit."""

    call: Call
    similarity: float
    same: bool
    given: bool


@record
class UsageCounted:
    """What finished calls of a model, by its configured name, and a tier came to.

    ``cost`` is in billionths of a dollar, without that of ``unpriced`` calls, whose price isn't known.
    """

    model: str
    tier: str
    usage: Usage
    cost: int
    unpriced: int


@record
class EnergyCounted:
    """What calls of a model, by its configured name, took at an upstream.

    ``energy`` and ``wasted``, its part that brought no answer, are in millionths of a joule; ``measured``
    tells that a counter said so. ``flops`` are the operations, as far as the upstream tells them.
    """

    upstream: str
    model: str
    measured: bool
    energy: int
    wasted: int
    flops: float


@record
class LedgerFlushed:
    """A batch of the usage ledger was written or dropped; ``away`` tells that the database didn't take it."""

    written: int
    dropped: int
    waiting: int
    away: bool


Fact = (
    CallRefused
    | CallStarted
    | CallFinished
    | AttemptFinished
    | HealthChanged
    | UpstreamEjected
    | ProbeFinished
    | BalancePanicked
    | RetryScheduled
    | RetryRefused
    | FailedOver
    | Hedged
    | HedgeFinished
    | StreamRescued
    | LimitChanged
    | AttemptRefused
    | TimerExpired
    | LimitReached
    | ReservationSettled
    | StoreChanged
    | SettlementLost
    | CallAdmitted
    | CallShed
    | CacheAsked
    | CacheRefreshed
    | CallCoalesced
    | CacheEvicted
    | CacheDropped
    | PromptEmbedded
    | SemanticLooked
    | SemanticVerified
    | UsageCounted
    | EnergyCounted
    | LedgerFlushed
)

"""Facts of upstreams: how they are, what they may be sent, and what wasn't."""

from policies.record import record
from policies.service import Call


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

"""Client-side throttling: the second gate, for when an upstream refuses most of what we send.

From "Handling Overload" in Google's Site Reliability Engineering (2016): a client that counts its
requests and the accepted ones over two minutes refuses with probability
max(0, (requests - K * accepts) / (requests + 1)) by itself. Three things differ, because another gate
stands before this one and because a first token may take minutes:

- a request counts when it was sent and not when it was wished for, since the concurrency limit
  already holds back what can't be served;
- it counts when its outcome is known, in the bucket of the time when it was sent: forty requests that
  wait in an upstream's queue aren't refusals;
- a handful of requests decides nothing, as in Envoy's admission control, whose ``rps_threshold`` this
  follows: one refused request would otherwise keep its own retry from being sent.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from random import Random

from policies.errors import AttemptHeldBack, UpstreamQuotaExhausted, UpstreamThrottled
from policies.facts import AttemptRefused
from policies.opening import opening
from policies.ports import Clock, Meter
from policies.service import Call, Reply, Service

_BUCKETS = 12


@dataclass(frozen=True, slots=True)
class ThrottleOptions:
    """``ratio`` is K: how many requests are sent for each one accepted before any is refused here.

    At most ``most`` of the requests are refused, so that recovery is noticed, and none while fewer than
    ``enough`` are known. ``window`` is in seconds.
    """

    ratio: float = 2.0
    window: float = 120.0
    most: float = 0.8
    enough: int = 10

    def __post_init__(self) -> None:
        if self.ratio < 1:
            raise ValueError("throttle.ratio must be at least 1; 2 is the book's")
        if self.window <= 0:
            raise ValueError("throttle.window must be above 0 s")
        if not 0 <= self.most < 1:
            raise ValueError("throttle.most must be at least 0 and below 1, or recovery goes unnoticed")
        if self.enough < 1:
            raise ValueError("throttle.enough must be at least 1")


class AcceptRatio:
    """Requests and accepted requests of the last ``window`` seconds, in buckets."""

    __slots__ = ("_accepted", "_head", "_options", "_random", "_requests", "_width", "accepts", "requests")

    def __init__(self, options: ThrottleOptions, *, random: Random) -> None:
        self._options = options
        self._random = random
        self._width = options.window / _BUCKETS
        self._requests = [0] * _BUCKETS
        self._accepted = [0] * _BUCKETS
        self._head = 0  # number of the newest bucket since the clock's origin
        self.requests = 0
        self.accepts = 0

    def refusal(self, now: float) -> float:
        """The probability with which a request should be refused now."""
        self._roll(now)
        if self.requests < self._options.enough:
            return 0.0
        excess = self.requests - self._options.ratio * self.accepts
        return min(self._options.most, excess / (self.requests + 1)) if excess > 0 else 0.0

    def refuses(self, now: float) -> bool:
        """Draw whether to refuse a request now."""
        refusal = self.refusal(now)
        return refusal > 0 and self._random.random() < refusal

    def record(self, now: float, sent_at: float, accepted: bool) -> None:
        """Note the outcome of a request."""
        self._roll(now)
        bucket = int(sent_at // self._width)
        if bucket <= self._head - _BUCKETS:
            return
        self._requests[bucket % _BUCKETS] += 1
        self.requests += 1
        if accepted:
            self._accepted[bucket % _BUCKETS] += 1
            self.accepts += 1

    def _roll(self, now: float) -> None:
        """Empty the buckets that are too old."""
        newest = int(now // self._width)
        if newest == self._head:
            return
        for bucket in range(max(self._head, newest - _BUCKETS) + 1, newest + 1):
            place = bucket % _BUCKETS
            self.requests -= self._requests[place]
            self.accepts -= self._accepted[place]
            self._requests[place] = self._accepted[place] = 0
        self._head = newest


class ClientThrottle:
    """Layer around one upstream: refuses a share of the attempts while the upstream refuses most.

    Raises AttemptHeldBack when the attempt wasn't sent. Only 429, 503 and 529
    count as refusals of the upstream; that it is broken is for the breaker to judge.
    """

    def __init__(
        self, inner: Service, *, upstream: str, ratio: AcceptRatio, clock: Clock, meter: Meter
    ) -> None:
        self._inner = inner
        self._upstream = upstream
        self._ratio = ratio
        self._clock = clock
        self._meter = meter

    @opening
    async def __call__(self, call: Call) -> AsyncGenerator[Reply]:
        sent_at = self._clock.now()
        if self._ratio.refuses(sent_at):
            retry_after = 1.0 / (1.0 - self._ratio.refusal(sent_at))
            self._meter.emit(AttemptRefused(call, self._upstream, "throttle", retry_after))
            raise AttemptHeldBack(
                f"{self._upstream} refuses most calls at the moment; try again in {retry_after:.0f} s.",
                retry_after=retry_after,
            )
        reply: Reply | None = None
        try:
            async with self._inner(call) as reply:
                self._ratio.record(self._clock.now(), sent_at, accepted=True)
                yield reply
        except UpstreamThrottled as error:
            if reply is None and not isinstance(error, AttemptHeldBack | UpstreamQuotaExhausted):
                self._ratio.record(self._clock.now(), sent_at, accepted=False)
            raise

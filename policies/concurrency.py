"""The arithmetic of adaptive concurrency: finds and follows one upstream's hidden, moving limit.

Providers limit concurrency by account and model, change the limit without notice and say so only by
429 or 503. So there is one ``ConcurrencyLimit`` for each upstream account and model:

- Slow start, then CUBIC (RFC 9438) on concurrency instead of bytes: a throttle marks the level W that
  was being served, the limit falls to ``decrease`` of it, climbs back to W in ``growth_period``, stays
  there for a while and only then looks for more. In this it is gentler than the AIMD of Netflix's
  concurrency-limits, which runs into the limit all the time.
- A hold-off after each throttle: until Retry-After, else exponential with full jitter. After it the
  first attempts are probes, doubled as they are answered, so that the end of a hold-off is no stampede.
  An upstream that asks for long ones is searched for more the more rarely.
- For upstreams that queue instead of refusing: ``policies.congestion``. For those that tell what is
  left: ``policies.pacing``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from random import Random

from policies.congestion import CongestionOptions, FirstTokenDelay
from policies.errors import UpstreamQuotaExhausted, UpstreamThrottled
from policies.pacing import Pacer, PacingOptions
from policies.service import Headroom

_SMOOTHING = 0.1
_HOLD_OFFS_PER_PERIOD = 4


@dataclass(frozen=True, slots=True)
class AdaptiveOptions:
    """How the limit moves. Times are in seconds.

    ``max_concurrency`` is a limit known from the contract, which is never exceeded. ``probe_share``
    bounds what the search for more may cost: the limit passes a level that was refused only after
    1 / ``probe_share`` attempts were answered below it.
    """

    initial: int = 8
    max_concurrency: int | None = None
    decrease: float = 0.85
    cooldown: float = 2.0
    growth_period: float = 20.0
    busy_share: float = 0.8
    probe_share: float = 0.02
    hold_off: float = 0.5
    longest_hold_off: float = 8.0
    congestion: CongestionOptions = field(default_factory=CongestionOptions)
    pacing: PacingOptions = field(default_factory=PacingOptions)

    def __post_init__(self) -> None:
        if self.initial < 1:
            raise ValueError("adaptive.initial must be at least 1")
        if self.max_concurrency is not None and self.max_concurrency < 1:
            raise ValueError("max_concurrency must be at least 1, or absent for no fixed limit")
        if not 0 < self.decrease < 1:
            raise ValueError("adaptive.decrease must be between 0 and 1; 0.85 is proven")
        if not 0 < self.busy_share <= 1 or not 0 < self.probe_share <= 1:
            raise ValueError("adaptive.busy_share and adaptive.probe_share must be above 0 and at most 1")
        if self.growth_period <= 0 or self.hold_off <= 0:
            raise ValueError("adaptive.growth_period and adaptive.hold_off must be above 0 s")
        if self.cooldown < 0 or self.longest_hold_off < 0:
            raise ValueError("adaptive.cooldown and longest_hold_off must not be negative")


class ConcurrencyLimit:
    """How many attempts may be under way at once, and until when the upstream wants none.

    ``ceiling`` tells the fixed limit of the hour where a schedule sets one; it stands for
    ``max_concurrency``. ``sent_at``, the time an attempt was sent, tells which attempts were sent
    before a throttle was heard of: their outcome is no news.
    """

    __slots__ = (
        "_answers",
        "_ask_ceiling",
        "_ceiling",
        "_congested",
        "_decreased_at",
        "_delay",
        "_duration",
        "_held_for",
        "_held_since",
        "_held_until",
        "_level",
        "_options",
        "_pacer",
        "_peak",
        "_probes",
        "_random",
        "_served",
        "_throttles",
        "_unanswered",
        "cause",
        "inflight",
        "limit",
    )

    def __init__(
        self,
        options: AdaptiveOptions,
        *,
        random: Random,
        ceiling: Callable[[], int | None] | None = None,
    ) -> None:
        self._options = options
        self._ask_ceiling = ceiling
        self._random = random
        self._delay = FirstTokenDelay(options.congestion)
        self._pacer = Pacer(options.pacing)
        self._ceiling = inf if options.max_concurrency is None else options.max_concurrency
        self._level = float(options.initial)  # the limit before rounding
        self._served: float | None = None  # W, the level at which we were last refused; None in slow start
        self._decreased_at = -inf
        self._answers = 0  # since the last decrease
        self._congested = False  # by the last window of first tokens
        self._peak = 0  # most in flight in this window of first tokens
        self._held_since = self._held_until = -inf
        self._held_for = 0.0
        self._throttles = 0  # in a row
        self._probes = inf  # attempts that may be unanswered at once after a hold-off
        self._unanswered = 0  # attempts sent since the hold-off began
        self._duration = 1.0  # smoothed, of an attempt
        self.inflight = 0
        self.limit = 0
        self.cause = "start"
        self._move(self._level, "start")

    @property
    def options(self) -> AdaptiveOptions:
        return self._options

    @property
    def retry_at(self) -> float:
        """When the upstream wants to hear from us again; in the past when it doesn't mind."""
        return max(self._held_until, self._pacer.ready_at)

    def held_off(self, now: float) -> bool:
        """Whether the upstream has refused and its hold-off isn't over."""
        return now < self._held_until

    def available(self, now: float) -> bool:
        """Whether an attempt may be sent now."""
        if self._ask_ceiling is not None:
            self.set_ceiling(self._ask_ceiling())
        return (
            self.inflight < self.limit
            and now >= self._held_until
            and now >= self._pacer.ready_at
            and self._unanswered < self._probes
        )

    def free(self, now: float) -> int:
        """How many attempts may be sent now."""
        if not self.available(now):
            return 0
        return int(min(self.limit - self.inflight, self._probes - self._unanswered, self._pacer.free(now)))

    def wait(self, now: float) -> float:
        """Seconds until an attempt may probably be sent: the hold-off's end, else the next permit's."""
        if (held := self.retry_at - now) > 0:
            return held
        return self._duration / max(1, self.limit)

    def set_ceiling(self, concurrency: int | None) -> None:
        """Change the fixed limit. Where it rises the search begins anew: the hidden one may have, too."""
        ceiling = inf if concurrency is None else concurrency
        if ceiling != self._ceiling:
            if ceiling > self._ceiling:
                self._served = None
                self._level = min(self._level, max(1.0, self._ceiling))
            self._ceiling = ceiling
            self._move(self._level, "ceiling")

    def sent(self, now: float) -> None:
        """An attempt goes out."""
        self.inflight += 1
        self._peak = max(self._peak, self.inflight)
        self._unanswered += 1
        self._pacer.sent(now)

    def answered(self, now: float, sent_at: float, ttft: float | None, headroom: Headroom | None) -> None:
        """The first content came; ``ttft`` is None where that isn't a first token but a whole body."""
        if sent_at > self._held_since:
            self._unanswered -= 1
            self._throttles = 0
            self._probes = self._probes + 1 if self._probes < self.limit else inf
        self._answers += 1
        if headroom is not None and (empty_until := self._pacer.told(now, headroom)) > now:
            self._hold(now, empty_until)
        if ttft is not None and (congested := self._delay.sample(now, ttft)) is not None:
            peak, self._peak = self._peak, self.inflight
            self._congested = congested
            if congested and now - self._decreased_at >= self._options.cooldown:
                self._decrease(now, peak, "congested")
        if not self._congested and self.inflight >= self._options.busy_share * self._level:
            self._grow(now)

    def throttled(self, now: float, sent_at: float, error: UpstreamThrottled) -> None:
        """The upstream refused the attempt."""
        self._hold_off(now, error.retry_after)
        if isinstance(error, UpstreamQuotaExhausted):
            return  # says nothing about concurrency
        if sent_at >= self._decreased_at and now - self._decreased_at >= self._options.cooldown:
            self._decrease(now, self.inflight - 1, "throttled")

    def ended(self, now: float, sent_at: float, answered: bool, tokens: int) -> None:
        """An attempt is over, whatever came of it."""
        self.inflight -= 1
        if not answered and sent_at > self._held_since:
            self._unanswered -= 1
        if answered:
            self._duration += (now - sent_at - self._duration) * _SMOOTHING
            self._pacer.used(tokens)

    def _grow(self, now: float) -> None:
        level, served, options = self._level, self._served, self._options
        if served is None:
            # A stream that has begun keeps its permit, so that 2 for each first token doubles what begins
            # in the time of one, as in TCP. Small limits, and one that was met before, get small steps.
            unmet = self._decreased_at == -inf and level >= 2 * options.initial
            self._move(level + (2 if unmet else 1), "slow start")
            return
        period = max(options.growth_period, _HOLD_OFFS_PER_PERIOD * self._held_for)
        target = served * (1 + (1 - options.decrease) * ((now - self._decreased_at) / period - 1) ** 3)
        if self._answers * options.probe_share < 1:
            target = min(target, served)
        if target > level:
            self._move(min(target, level + 1), "growth")

    def _decrease(self, now: float, inflight: int, cause: str) -> None:
        served = max(1.0, min(self._level, inflight))
        # Refused with less than half of the limit in use: that tells nothing of where the limit is.
        self._served = None if inflight < self._level / 2 else served
        self._decreased_at = now
        self._answers = 0
        self._move(self._options.decrease * served, cause)

    def _hold_off(self, now: float, retry_after: float | None) -> None:
        if now >= self._held_until:
            self._throttles += 1
            if not retry_after:
                most = min(self._options.longest_hold_off, self._options.hold_off * 2**self._throttles)
                retry_after = self._options.hold_off + self._random.uniform(0, most)
        self._hold(now, now + (retry_after or 0.0))
        self._held_for = self._held_until - self._held_since

    def _hold(self, now: float, until: float) -> None:
        """Send nothing until then, and probes at first after it."""
        if now >= self._held_until:
            self._held_since = now
            self._unanswered = 0
            self._probes = 1
        self._held_until = max(self._held_until, until)

    def _move(self, level: float, cause: str) -> None:
        self._level = max(1.0, level)
        limit = int(min(self._level + 0.5, self._ceiling))
        if limit != self.limit:
            self.limit = limit
            self.cause = cause

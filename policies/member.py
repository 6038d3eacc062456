"""A member of a group of equal upstreams, and what is known of it: its load, latency and quota.

Latency is finagle's peak-EWMA (twitter.github.io/finagle, "Peak EWMA"): it jumps up at once and comes
down slowly, and fades while nothing is heard, so that a slow upstream is asked again after a while.
It is fed with the time to the first token: the whole answer's time tells how long the answer was.
A call that is still waiting counts with the time it has waited, so that silence shows before the
timeout does.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import exp, inf
from typing import Protocol

from policies.errors import UpstreamKeyRejected, UpstreamQuotaExhausted, UpstreamTimeout
from policies.health import Health, HealthState
from policies.service import Call, Headroom, Reply, Service

_FLOOR = 0.001
"""Latencies below a millisecond are alike, so that the number of calls in flight decides."""
_STALE = 2.0
"""After so many time constants in silence the latency is unknown: what recovered is back that soon."""
_FOR_GOOD = frozenset(
    {UpstreamTimeout.__name__, UpstreamKeyRejected.__name__, UpstreamQuotaExhausted.__name__}
)
_UNKNOWN = 1e6
"""While the latency is unknown, one call at a time finds out."""
_UNARY_TOKENS = 32
"""A unary body's time is divided by 1 + its tokens / this: about the time to its first token."""


class Gate(Protocol):
    """Something that an upstream's calls must pass, such as ``policies.concurrency.ConcurrencyLimit``."""

    def available(self, now: float, /) -> bool:
        """Whether a call may pass now."""
        ...

    def worth_waiting(self, now: float, patience: float, /) -> bool:
        """Whether a call may probably pass within ``patience`` seconds, if it waits in turn."""
        ...

    def wait(self, now: float, /) -> float:
        """Seconds until one may probably pass."""
        ...


class PeakEwma:
    """Seconds to the first token: at once up, with time constant ``tau`` down."""

    __slots__ = ("_stamp", "_tau", "_value")

    def __init__(self, tau: float = 10.0) -> None:
        if tau <= 0:
            raise ValueError(f"the time constant is {tau:g} s: give more than 0 s")
        self._tau = tau
        self._value = 0.0
        self._stamp = -inf

    def observe(self, now: float, seconds: float) -> None:
        silence = (now - self._stamp) / self._tau
        if seconds >= self._value or silence >= _STALE:
            self._value = seconds
        else:
            old = exp(-silence)
            self._value = self._value * old + seconds * (1 - old)
        self._stamp = now

    def read(self, now: float) -> float | None:
        """The latency, faded by the time since it was last observed; None when unknown."""
        silence = (now - self._stamp) / self._tau
        return self._value * exp(-silence) if silence < _STALE else None


class QuotaShare:
    """Which part of its quota an upstream has left, as its x-ratelimit headers tell. 1 when unsaid.

    The whole is the most that was ever left: the headers needn't tell the limit itself.
    """

    __slots__ = ("_requests", "_share", "_tokens", "_until")

    def __init__(self) -> None:
        self._requests = self._tokens = 1
        self._share = 1.0
        self._until = -inf

    def told(self, now: float, headroom: Headroom) -> None:
        share, reset = 1.0, 0.0
        if headroom.remaining_requests is not None:
            self._requests = max(self._requests, headroom.remaining_requests)
            share = headroom.remaining_requests / self._requests
            reset = headroom.reset_requests or 0.0
        if headroom.remaining_tokens is not None:
            self._tokens = max(self._tokens, headroom.remaining_tokens)
            if headroom.remaining_tokens / self._tokens < share:
                share = headroom.remaining_tokens / self._tokens
                reset = headroom.reset_tokens or 0.0
        self._share = max(0.05, share)
        self._until = now + (reset or 60.0)

    def read(self, now: float) -> float:
        return self._share if now < self._until else 1.0


@dataclass(slots=True, eq=False, weakref_slot=True)
class Member:
    """One upstream account and model. Groups that share an upstream share its member, or its ``latency``.

    ``name`` is what ``Attempt.upstream`` says. ``weight`` may be changed at any time; ``schedule``
    scales it by what it returns (off-peak hours), and health scales it after a return. ``limits`` are
    asked before each call: ``Permits``, one object where several accounts share a quota. A call waits
    for them up to ``patience`` seconds, where no other member is free. ``cost`` is any price on one
    scale; a lower ``priority`` goes first. An empty ``model`` stands for the one that the caller asked
    for. ``context_window`` is in tokens, None where it isn't known. ``opening`` holds the streams that
    still wait for their first token, oldest first.
    """

    name: str
    service: Service
    model: str = ""
    weight: float = 1.0
    cost: float = 1.0
    priority: int = 0
    health: Health | None = None
    limits: tuple[Gate, ...] = ()
    patience: float = 0.0
    context_window: int | None = None
    schedule: Callable[[float], float] | None = None
    latency: PeakEwma = field(default_factory=PeakEwma)
    inflight: int = field(default=0, init=False)
    quota: QuotaShare = field(default_factory=QuotaShare, init=False)
    opening: dict[Call, float] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.weight <= 0 or self.cost <= 0:
            raise ValueError(f"{self.name}: weight and cost must be above 0")

    # Asking

    def within_limits(self, now: float) -> bool:
        for limit in self.limits:  # noqa: SIM110 - a generator would cost more than what it asks
            if not limit.available(now):
                return False
        return True

    def available(self, now: float) -> bool:
        return (self.health is None or self.health.available(now)) and self.within_limits(now)

    def worth_waiting(self, now: float) -> bool:
        """Whether a call that waits for its turn here is probably let through."""
        healthy = self.health is None or self.health.state(now) is HealthState.CLOSED
        return healthy and all(limit.worth_waiting(now, self.patience) for limit in self.limits)

    def wait(self, now: float) -> float:
        """Seconds until it may be available; infinity when nothing is planned."""
        waits = [limit.wait(now) for limit in self.limits if not limit.available(now)]
        if self.health is not None:
            waits.append(self.health.wait(now))
        return max(waits, default=0.0)

    def on_trial(self, now: float) -> bool:
        """Whether a call would be a trial of an upstream that is out."""
        return self.health is not None and self.health.state(now) is not HealthState.CLOSED

    def tried(self, call: Call) -> bool:
        """Whether the call was or is being tried here."""
        model = self.model or call.model
        return any(attempt.upstream == self.name and attempt.model == model for attempt in call.attempts)

    def failed_for_good(self, call: Call) -> bool:
        """Whether the call has met something here that another attempt of it would meet again."""
        model = self.model or call.model
        return any(
            attempt.upstream == self.name and attempt.model == model and attempt.outcome in _FOR_GOOD
            for attempt in call.attempts
        )

    def weigh(self, now: float) -> float:
        """The weight as it is now."""
        weight = self.weight if self.schedule is None else max(1e-6, self.weight * self.schedule(now))
        return weight if self.health is None else weight * self.health.weight_factor(now)

    def load(self, now: float) -> float:
        """Expected seconds to the first token, times the calls in flight, per weight and quota left."""
        latency = self.latency.read(now)
        if latency is None:
            latency = _UNKNOWN if self.inflight else _FLOOR
        if self.opening:
            latency = max(latency, now - next(iter(self.opening.values())))
        return max(latency, _FLOOR) * (self.inflight + 1) / (self.weigh(now) * self.quota.read(now))

    # A call's way through

    def opened(self, call: Call, now: float) -> None:
        self.inflight += 1
        if call.stream:
            self.opening[call] = now

    def answered(self, call: Call, now: float, elapsed: float, reply: Reply) -> None:
        """The first token is there, ``elapsed`` seconds after the opening."""
        self.opening.pop(call, None)
        if reply.stream:
            self.latency.observe(now, elapsed)
        if reply.headroom is not None:
            self.quota.told(now, reply.headroom)

    def finished(self, now: float, elapsed: float, reply: Reply) -> None:
        """The reply was read to its end; only now is a unary body's length known."""
        if reply.complete and reply.usage is not None:
            self.latency.observe(now, elapsed / (1 + reply.usage.output / _UNARY_TOKENS))

    def waited(self, now: float, elapsed: float) -> None:
        """The call was given up after ``elapsed`` seconds without an answer: it took at least that."""
        if elapsed > (self.latency.read(now) or 0.0):
            self.latency.observe(now, elapsed)

    def left(self, call: Call) -> None:
        self.inflight -= 1
        self.opening.pop(call, None)

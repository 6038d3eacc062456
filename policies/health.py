"""Health: takes an upstream that stopped working out of rotation, and lets it back in gently.

Without it, every call to a dead upstream pays for finding that out again; without care on the way
back, everybody who waited falls upon it in its first second. Follows the circuit breaker of Nygard's
"Release It!" with half-open trials shared by all, Envoy's outlier ejection (policies/outlier.py) for
when and how long, and Envoy's slow start mode for the return: the weight climbs from a tenth to the
whole.

What counts is what the upstream is to blame for. "Too many requests" and "busy" are signs of life
and belong to adaptive concurrency; a call that its client gave up says nothing.
"""

import math
import random
from dataclasses import dataclass, field
from enum import StrEnum

from policies.errors import (
    UpstreamError,
    UpstreamKeyRejected,
    UpstreamQuotaExhausted,
    UpstreamRejected,
    UpstreamThrottled,
)
from policies.facts import HealthChanged, UpstreamEjected
from policies.outlier import EjectionTime, OutlierDetector, OutlierOptions
from policies.ports import Meter
from policies.service import Reply


@dataclass(frozen=True, slots=True)
class HealthOptions:
    """Times in seconds.

    ``passes`` trials end half-open; a trial that takes longer than ``patience`` lets another go. The
    weight then climbs from ``floor`` to 1 within ``ramp``. A refused key is tried again after
    ``key_recheck``, a quota without a known reset after ``quota_recheck``. Before its time an ejected
    upstream is tried at most once per ``panic`` while its whole group is out, and once per ``hint``
    when free probes say that it answers.
    """

    outlier: OutlierOptions = field(default_factory=OutlierOptions)
    passes: int = 2
    patience: float = 10.0
    ramp: float = 60.0
    floor: float = 0.1
    key_recheck: float = 900.0
    quota_recheck: float = 600.0
    panic: float = 2.0
    hint: float = 15.0

    def __post_init__(self) -> None:
        if self.passes < 1:
            raise ValueError("passes must be 1 or more: the trials that bring an upstream back")
        if not 0 < self.floor <= 1 or self.ramp < 0:
            raise ValueError("floor must be above 0 and at most 1, and ramp 0 or more")
        if min(self.patience, self.key_recheck, self.quota_recheck, self.panic, self.hint) <= 0:
            raise ValueError("patience, key_recheck, quota_recheck, panic and hint must be above 0 seconds")


class HealthState(StrEnum):
    """Closed means in rotation, as with a fuse; the others are out, each for its own reason."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"
    DRAINING = "draining"
    DISABLED = "disabled"
    BLOCKED = "blocked"


_CLOSED = HealthState.CLOSED
_TIMED = frozenset({HealthState.OPEN, HealthState.DISABLED, HealthState.BLOCKED})
_ASK_AGAIN = 1.0
"""Seconds to wait while another call's trial is under way: nobody knows how long that takes."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A call's leave to pass. Its outcome counts only in the epoch in which it was given."""

    epoch: int
    trial: bool = False


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What an operator sees; ``next_probe`` in seconds from now, None when nothing is planned."""

    state: HealthState
    why: str
    next_probe: float | None
    ejections: int
    failures_in_a_row: int
    error_ratio: float
    weight_factor: float


def counts_as_failure(error: BaseException) -> bool:
    """Whether the upstream is to blame, and broken rather than busy."""
    return isinstance(error, UpstreamError) and not isinstance(error, UpstreamThrottled | UpstreamRejected)


class Health:
    """The health of one upstream account and model. ``now`` is in seconds on one monotonic scale."""

    __slots__ = (
        "_early", "_ejection", "_epoch", "_hint_after", "_meter", "_options", "_outlier",
        "_panic_after", "_passes", "_ramp_from", "_resume_closed", "_state", "_ticket", "_trial",
        "_trial_since", "_until", "_why", "model", "upstream",
    )  # fmt: skip

    def __init__(
        self, upstream: str, *, model: str = "", options: HealthOptions, rng: random.Random, meter: Meter
    ) -> None:
        self.upstream = upstream
        self.model = model
        self._options = options
        self._meter = meter
        self._outlier = OutlierDetector(options.outlier)
        self._ejection = EjectionTime(options.outlier, rng)
        self._state = HealthState.CLOSED
        self._why = ""
        self._until = self._ramp_from = self._panic_after = self._hint_after = -math.inf
        self._epoch = 0
        self._ticket = Ticket(0)
        self._trial: Ticket | None = None
        self._trial_since = -math.inf
        self._passes = 0
        self._early: tuple[HealthState, float] | None = None
        self._resume_closed = False

    # Asking

    def state(self, now: float) -> HealthState:
        if self._state is not _CLOSED and self._state in _TIMED and now >= self._until:
            self._half_open(now, "its time is up")
        return self._state

    def available(self, now: float) -> bool:
        """Whether a call may pass now; half-open lets one trial pass at a time."""
        if self._state is _CLOSED:
            return True
        if self.state(now) is not HealthState.HALF_OPEN:
            return False
        return self._trial is None or now - self._trial_since >= self._options.patience

    def wait(self, now: float) -> float:
        """Seconds until it is worth asking again: 0 when available, infinity when nothing is planned."""
        if self.available(now):
            return 0.0
        return _ASK_AGAIN if self._state is HealthState.HALF_OPEN else self._until - now

    def weight_factor(self, now: float) -> float:
        """By how much to scale the upstream's weight: less than 1 for a while after a return."""
        since = now - self._ramp_from
        if since >= self._options.ramp:
            return 1.0
        return max(self._options.floor, since / self._options.ramp)

    def report(self, now: float) -> HealthReport:
        state = self.state(now)
        calls, bad = self._outlier.totals(now)
        return HealthReport(
            state=state,
            why=self._why,
            next_probe=self._planned(now),
            ejections=self._ejection.count(now),
            failures_in_a_row=self._outlier.run,
            error_ratio=bad / calls if calls else 0.0,
            weight_factor=self.weight_factor(now),
        )

    # A call's way through

    def admit(self, now: float) -> Ticket | None:
        """Leave to pass, to be settled once; None when the upstream is out."""
        if self._state is _CLOSED:
            return self._ticket
        if not self.available(now):
            return None
        self._trial = Ticket(self._epoch, trial=True)
        self._trial_since = now
        return self._trial

    def first_event(self, ticket: Ticket, now: float) -> None:
        """The upstream has answered. After a trial the next may go; enough of them bring it back."""
        if ticket is self._trial:
            self._trial = None
        if ticket.epoch == self._epoch:
            if self._state is _CLOSED:
                self._outlier.answered()
            elif ticket.trial and self._state is HealthState.HALF_OPEN:
                self._passed(now)

    def settle(self, ticket: Ticket, now: float, error: BaseException | None, reply: Reply | None) -> None:
        """The call is over, ``reply`` None when it wasn't answered.

        Cancelled, abandoned and throttled calls only give back the trial's place.
        """
        if ticket is self._trial:
            self._trial = None
        if ticket.epoch != self._epoch:
            return
        if error is None:
            if reply is not None and reply.complete and self._state is _CLOSED:
                self._outlier.succeeded(now)
                self._ejection.healthy(now)
        elif isinstance(error, UpstreamKeyRejected):
            self._refuse(HealthState.DISABLED, now, self._options.key_recheck, error)
        elif isinstance(error, UpstreamQuotaExhausted):
            self._refuse(HealthState.BLOCKED, now, error.retry_after or self._options.quota_recheck, error)
        elif counts_as_failure(error):
            self._failed(now, type(error).__name__, answered=reply is not None)

    # Operators, probes and panic

    def drain(self, now: float) -> None:
        """Take no new calls until ``resume``; those under way go on."""
        if self._state is not HealthState.DRAINING:
            self._resume_closed = self._state is _CLOSED
            self._leave(HealthState.DRAINING, now, math.inf, "drained by an operator")

    def resume(self, now: float) -> None:
        """Undo ``drain``, an ejection, a refused key or a used-up quota: an operator says it is mended."""
        if self._state is HealthState.DRAINING and self._resume_closed:
            self._close(now, "resumed by an operator")
        elif self._state is not HealthState.CLOSED:
            self._ejection.forgive()
            self._half_open(now, "resumed by an operator")

    def panic(self, now: float) -> bool:
        """Every upstream of the group is out: whether this one may be tried before its time."""
        if self.state(now) is not HealthState.OPEN or now < self._panic_after:
            return False
        self._panic_after = now + self._options.panic
        self._half_open(now, "every upstream is out", early=True)
        return True

    def probed(self, now: float, error: BaseException | None, *, proof: bool) -> None:
        """What an active probe found.

        With ``proof`` (a real, one-token call) a success is a trial passed, and a refused key is one.
        Without (a free call to /models, which often answers while the model doesn't, and which many a key
        that may call the model may not make) a success only makes a trial worth while.
        """
        state = self.state(now)
        if isinstance(error, UpstreamKeyRejected) and proof and state is not HealthState.DRAINING:
            self._refuse(HealthState.DISABLED, now, self._options.key_recheck, error)
        elif error is None and proof:
            if state in _TIMED:
                self._half_open(now, "a probe was answered", early=True)
            if self._state is HealthState.HALF_OPEN:
                self._passed(now)
        elif error is None and state is HealthState.OPEN and now >= self._hint_after:
            self._hint_after = now + self._options.hint
            self._half_open(now, "a free probe was answered", early=True)

    # Transitions

    def _failed(self, now: float, name: str, *, answered: bool) -> None:
        if self._state is _CLOSED:
            why = self._outlier.failed(now, answered=answered)
            if why is not None:
                self._eject(now, f"{why} ({name})")
        elif self._early is not None and now < self._early[1]:
            state, until = self._early
            self._leave(state, now, until, f"a trial before its time failed ({name})")
        else:
            self._eject(now, f"a trial failed ({name})")

    def _passed(self, now: float) -> None:
        self._passes += 1
        if self._passes >= self._options.passes:
            self._close(now, "its trials passed")

    def _eject(self, now: float, why: str) -> None:
        k, seconds = self._ejection.next(now)
        self._leave(HealthState.OPEN, now, now + seconds, why)
        self._meter.emit(UpstreamEjected(self.upstream, self.model, k, seconds, why))

    def _refuse(self, state: HealthState, now: float, seconds: float, error: UpstreamError) -> None:
        self._leave(state, now, now + seconds, f"{type(error).__name__}: {error.message}")

    def _leave(self, state: HealthState, now: float, until: float, why: str) -> None:
        self._epoch += 1
        self._ticket = Ticket(self._epoch)
        self._trial = None
        self._outlier.reset()
        self._ejection.left()
        self._change(state, now, until, why)

    def _half_open(self, now: float, why: str, *, early: bool = False) -> None:
        self._early = (self._state, self._until) if early else None
        self._trial = None
        self._passes = 0
        self._change(HealthState.HALF_OPEN, now, now, why)

    def _close(self, now: float, why: str) -> None:
        self._trial = None
        self._ramp_from = now
        self._change(HealthState.CLOSED, now, now, why)

    def _change(self, state: HealthState, now: float, until: float, why: str) -> None:
        before, self._state, self._until, self._why = self._state, state, until, why
        fact = HealthChanged(self.upstream, self.model, before.value, state.value, why, self._planned(now))
        self._meter.emit(fact)

    def _planned(self, now: float) -> float | None:
        return max(0.0, self._until - now) if self._state in _TIMED else None

"""Failover: the steps of a route in their order, until one answers.

The chain of targets is what LiteLLM's and Portkey's ``fallbacks`` made common for models; what is
retried where follows Envoy's ``retry_on``: by the class of the error and never by its text. Two rules
come from what their users reported. An error of the caller is the caller's, however many targets
there are, so it is passed on as it is. And a fallback that refuses a request made for another model
must not hide why the first target could not answer it.
"""

import math
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from policies.errors import (
    GatewayError,
    NoHealthyUpstream,
    UpstreamContextTooLong,
    UpstreamError,
    UpstreamRejected,
    UpstreamUnsuited,
)
from policies.facts import FailedOver
from policies.opening import opening
from policies.ports import Meter
from policies.service import Attempt, Call, Reply, Service


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a route: a target, or a balanced group of equals.

    ``context_window`` is in tokens, of the largest of its members; None where it isn't known.
    ``another`` tells whether it could now pick an upstream that isn't in ``call.attempts``, and
    ``window_of`` the window of the member that made an attempt, where its members differ. A step
    ``beyond`` a number of tokens holds the larger ones of the step before it: it takes only a prompt that
    was too long there, for a window of at most so many.
    """

    name: str
    service: Service
    context_window: int | None = None
    another: Callable[[Call], bool] | None = None
    window_of: Callable[[Attempt], int | None] | None = None
    beyond: int | None = None

    def __post_init__(self) -> None:
        if self.context_window is not None and self.context_window <= 0:
            raise ValueError(
                f"the context window of {self.name} is {self.context_window}: give tokens above 0"
            )

    def refusing(self, call: Call) -> int:
        """The window that the call's prompt was too long for just now; 0 where it isn't known."""
        if self.window_of is None or not call.attempts:
            return self.context_window or 0
        return self.window_of(call.attempts[-1]) or 0


class Failures:
    """What went wrong on a call's way along its route, and which error tells it."""

    __slots__ = ("_causes", "_pending", "_rejection", "_retry_after", "_steps", "_too_long", "_window")

    def __init__(self) -> None:
        self._causes: list[UpstreamError] = []
        self._rejection: UpstreamRejected | None = None
        self._pending: NoHealthyUpstream | None = None
        self._retry_after = math.inf
        self._steps = 0
        self._too_long = False
        self._window = 0

    def add(self, error: UpstreamError | NoHealthyUpstream, step: Step, call: Call) -> bool:
        """Take in how ``step`` failed; False when that is the caller's own error and ends the call."""
        self._steps += 1
        self._too_long = isinstance(error, UpstreamContextTooLong)
        if isinstance(error, UpstreamRejected):
            if self._too_long:
                self._window = max(self._window, step.refusing(call))
            elif self._steps == 1 and not isinstance(error, UpstreamUnsuited):
                return False
            self._rejection = self._rejection or error
            return True
        if isinstance(error, NoHealthyUpstream):
            self._pending = self._pending or error
            self._causes += error.causes
        else:
            self._causes.append(error)
        if error.retry_after is not None:
            self._retry_after = min(self._retry_after, error.retry_after)
        return True

    def fits(self, step: Step, call: Call) -> bool:
        """Whether ``step`` may take a prompt that was too long for the steps before it."""
        if step.beyond is not None:
            wanted = self._too_long and 0 < self._window <= step.beyond
            return wanted and (step.another is None or step.another(call))
        return step.context_window is None or step.context_window > self._window

    def error(self) -> GatewayError:
        """The error for the client: the single failure as it was, or all of them in one."""
        if self._pending is None and not self._causes and self._rejection is not None:
            return self._rejection
        if self._pending is None and len(self._causes) == 1:
            return self._causes[0]
        if self._pending is not None and self._steps == 1:
            return self._pending
        soon = self._retry_after if self._retry_after < math.inf else None
        hint = f"in {math.ceil(soon)} s" if soon is not None else "later"
        return NoHealthyUpstream(
            f"No upstream of this model could answer. Try again {hint}.",
            causes=self._causes,
            retry_after=soon,
        )


class Failover:
    """Layer over a route: opens its steps one after another until a first event comes.

    A step that refuses the call as such ends it, unless an earlier step failed for a better reason;
    one that has no such model or endpoint doesn't, and a prompt too long for one step goes on to those
    with a larger or unknown window. When no step is
    left, raises the only failure, or ``NoHealthyUpstream`` with all of them and the smallest
    ``retry_after``.

    A call that comes with a history is one whose stream broke: steps with an upstream that wasn't
    tried go first.
    """

    def __init__(self, steps: Sequence[Step], *, meter: Meter) -> None:
        if not steps:
            raise ValueError("a route needs a step: name a target in `route`")
        self._steps = tuple(steps)
        self._meter = meter

    @opening
    async def __call__(self, call: Call) -> AsyncGenerator[Reply]:
        failures = Failures()
        failure = ""
        for step in self._order(call):
            if not failures.fits(step, call):
                continue
            if failure:
                self._meter.emit(FailedOver(call, failure, step.name))
            opened = False
            try:
                async with step.service(call) as reply:
                    opened = True
                    yield reply
            except (UpstreamError, NoHealthyUpstream) as error:
                if opened or not failures.add(error, step, call):
                    raise
                failure = type(error).__name__
            else:
                return
        raise failures.error()

    def _order(self, call: Call) -> Sequence[Step]:
        if not call.attempts:
            return self._steps
        return sorted(self._steps, key=lambda step: step.another is not None and not step.another(call))

"""From facts to steps of a trace: what each layer tells becomes a span below its request's."""

from collections.abc import Callable
from math import inf, isfinite
from typing import Any

from gateway.tracing import names
from gateway.tracing.request import Attributes, RequestTrace
from policies import facts
from policies.errors import Overloaded, RateLimited
from policies.ports import Meter
from policies.service import CANCELLED, OK


class TracedFacts:
    """A ``Meter`` in front of ``meter`` that tells facts of traced calls in their traces."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def emit(self, fact: facts.Fact) -> None:
        self._meter.emit(fact)
        tell = _STEPS.get(type(fact))
        if tell is not None:
            trace = fact.call.trace  # type: ignore[union-attr] # every fact in the table has a call
            if isinstance(trace, RequestTrace):
                tell(trace, fact)


def _admitted(trace: RequestTrace, fact: facts.CallAdmitted) -> None:
    trace.step("queue wait", {names.TIER: fact.tier}, took=fact.waited)


def _shed(trace: RequestTrace, fact: facts.CallShed) -> None:
    known = {names.TIER: fact.tier, "tidegate.shed.reason": fact.reason, **_after(fact.retry_after)}
    trace.step("shed", known, error=Overloaded.__name__)


def _limited(trace: RequestTrace, fact: facts.LimitReached) -> None:
    known = {"tidegate.limit.dimension": str(fact.dimension), **_after(fact.retry_after)}
    trace.step("rate limit", known, error=RateLimited.__name__)


def _cached(trace: RequestTrace, fact: facts.CacheAsked) -> None:
    status = fact.status
    if status.served:
        known: Attributes = {
            "tidegate.cache.state": status.state.value,
            "tidegate.cache.tier": status.tier,
            "tidegate.cache.age": status.age,
        }
        trace.step("cache hit", known)


def _refreshed(trace: RequestTrace, fact: facts.CacheRefreshed) -> None:
    trace.settle("retry wait")
    error = None if fact.outcome in {OK, CANCELLED} else fact.outcome
    trace.step("cache refresh", {names.OUTCOME: fact.outcome}, error=error)


def _coalesced(trace: RequestTrace, fact: facts.CallCoalesced) -> None:
    leader = None if fact.leader is None else fact.leader.trace
    link = leader.span if isinstance(leader, RequestTrace) else None
    trace.step("coalesce", {"tidegate.cache.among": fact.among}, link=link)


def _retried(trace: RequestTrace, fact: facts.RetryScheduled) -> None:
    known = {names.FAILURE: fact.failure, names.UPSTREAM: fact.upstream or ""}
    trace.begin("retry wait", known, wait=fact.wait)


def _retry_refused(trace: RequestTrace, fact: facts.RetryRefused) -> None:
    trace.step("retry refused", {names.FAILURE: fact.failure, names.UPSTREAM: fact.upstream or ""})


def _failed_over(trace: RequestTrace, fact: facts.FailedOver) -> None:
    trace.settle("retry wait")
    trace.step("failover", {names.FAILURE: fact.failure, "tidegate.target": fact.target})


def _hedged(trace: RequestTrace, fact: facts.Hedged) -> None:
    trace.begin("hedge", {"tidegate.hedge.after": fact.after}, wait=inf)


def _hedge_finished(trace: RequestTrace, fact: facts.HedgeFinished) -> None:
    trace.settle("hedge", {names.OUTCOME: fact.outcome})


def _rescued(trace: RequestTrace, fact: facts.StreamRescued) -> None:
    known = {names.OUTCOME: fact.outcome, names.FAILURE: fact.failure}
    trace.step("rescue", {**known, "tidegate.rescue.delivered": fact.delivered})


def _held_back(trace: RequestTrace, fact: facts.AttemptRefused) -> None:
    known = {names.UPSTREAM: fact.upstream, "tidegate.gate": fact.gate, **_after(fact.retry_after)}
    trace.step("held back", known)


def _panicked(trace: RequestTrace, fact: facts.BalancePanicked) -> None:
    trace.step("balance panic", {names.UPSTREAM: fact.upstream})


def _expired(trace: RequestTrace, fact: facts.TimerExpired) -> None:
    trace.step("silence", {names.UPSTREAM: fact.upstream, "tidegate.timer": fact.timer}, took=fact.seconds)


def _after(seconds: float) -> Attributes:
    return {names.RETRY_AFTER: seconds} if isfinite(seconds) else {}


_STEPS: dict[type[Any], Callable[[RequestTrace, Any], None]] = {
    facts.CallAdmitted: _admitted,
    facts.CallShed: _shed,
    facts.LimitReached: _limited,
    facts.CacheAsked: _cached,
    facts.CacheRefreshed: _refreshed,
    facts.CallCoalesced: _coalesced,
    facts.RetryScheduled: _retried,
    facts.RetryRefused: _retry_refused,
    facts.FailedOver: _failed_over,
    facts.Hedged: _hedged,
    facts.HedgeFinished: _hedge_finished,
    facts.StreamRescued: _rescued,
    facts.AttemptRefused: _held_back,
    facts.BalancePanicked: _panicked,
    facts.TimerExpired: _expired,
}

"""What one worker saw lately, from the facts that its policies emit.

It keeps no body and no prompt, only what the access log would say too.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from gateway.dashboard.slots import Slots
from gateway.stores.ledger import REFUSALS
from policies.facts import AttemptFinished, CallFinished, CallShed, Fact, LimitReached
from policies.ports import Meter
from policies.service import CANCELLED, OK, Attempt, CacheState, Usage

RECENT = 30
"""How many finished requests are remembered."""

ANSWERED, FAILED, REFUSED = "answered", "failed", "refused"
"""How a request counts: an answer, a failure behind the gateway, or the caller's to mend or to wait for."""


def counted_as(outcome: str) -> str:
    """How a request of this outcome counts; one that its client gave up counts as answered."""
    if outcome in {OK, CANCELLED}:
        return ANSWERED
    return REFUSED if outcome in REFUSALS else FAILED


class Finished(NamedTuple):
    """One request that is over. Times are in seconds; ``at`` is the wall clock's.

    ``usage`` is what an upstream counted, nothing where the cache had the answer.
    """

    at: float
    request_id: str
    tenant: str
    tier: str
    model: str
    outcome: str
    duration: float
    first_token: float | None
    queued: float
    cached: CacheState | None
    attempts: list[Attempt]
    upstream: str | None
    served_model: str | None
    usage: Usage | None


class Journal:
    """A ``Meter`` in front of ``meter``, that remembers the last minutes."""

    def __init__(self, meter: Meter, wall_time: Callable[[], float]) -> None:
        self._meter = meter
        self._wall_time = wall_time
        self.requests: deque[Finished] = deque(maxlen=RECENT)
        self.calls, self.shed, self.refused = Slots(), Slots(), Slots()
        self.first_tokens, self.first_token_seconds = Slots(), Slots()
        self._observers: dict[type[Any], Callable[[Any], None]] = {
            AttemptFinished: self._attempt_finished,
            CallFinished: self._call_finished,
            CallShed: lambda fact: self.shed.add(fact.tier, self._wall_time()),
            LimitReached: lambda fact: self.refused.add(fact.call.tier, self._wall_time()),
        }

    def emit(self, fact: Fact) -> None:
        """Pass a fact on, and remember what the page shows of it."""
        self._meter.emit(fact)
        observe = self._observers.get(type(fact))
        if observe is not None:
            observe(fact)

    def _attempt_finished(self, fact: AttemptFinished) -> None:
        attempt = fact.attempt
        if attempt.first_event is not None:
            name, now = f"{attempt.upstream}/{attempt.model}", self._wall_time()
            self.first_tokens.add(name, now)
            self.first_token_seconds.add(name, now, attempt.first_event)

    def _call_finished(self, fact: CallFinished) -> None:
        call, now = fact.call, self._wall_time()
        self.calls.add(counted_as(fact.outcome), now)
        self.requests.append(
            Finished(
                at=now,
                request_id=call.id,
                tenant=call.tenant,
                tier=call.tier,
                model=call.model,
                outcome=fact.outcome,
                duration=fact.duration,
                first_token=fact.first_event,
                queued=call.queued,
                cached=None if fact.cached is None else fact.cached.state,
                attempts=call.attempts,
                upstream=fact.upstream,
                served_model=fact.served_model,
                usage=Usage() if fact.cached is not None and fact.cached.served else fact.usage,
            )
        )

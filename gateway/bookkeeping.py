"""From a finished request to its entries in the usage ledger: what it used, and what that cost.

A request is one entry. Attempts that a provider bills beside the answer, such as the loser of a hedge where
it bills what was cancelled, are entries of their own, and so is what the cache fetches anew; failed attempts
are nobody's cost.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from gateway.ledger import Ledger
from gateway.prices import Tariffs
from gateway.stores.keys import Key
from gateway.stores.ledger import EXTRA, Entry
from policies.billing import billed_attempts
from policies.consumption import consumption
from policies.errors import GatewayError
from policies.facts import CacheRefreshed, Fact
from policies.ports import Meter
from policies.service import CANCELLED, LOST, OK, PENDING, Attempt, Call, Estimate, Operation, Reply, Usage

_LONGEST_NAME = 200
_MOST_TOKENS = 10**9
"""No name of a client's, and no count of an upstream's, may be more than a database takes."""


@dataclass(slots=True)
class Ended:
    """What is known of a request of this ``key`` when it is over. Times are in seconds.

    ``characters`` of the answer's text were delivered.
    """

    request_id: str
    key: Key
    operation: Operation
    status: int
    outcome: str
    duration: float
    first_event: float | None
    call: Call | None
    reply: Reply | None
    failure: GatewayError | None
    characters: int


class RefreshesEntered:
    """A ``Meter`` in front of ``meter`` that has ``enter`` hear of what the cache fetched anew."""

    def __init__(self, meter: Meter, enter: Callable[[CacheRefreshed], None]) -> None:
        self._meter = meter
        self._enter = enter

    def emit(self, fact: Fact) -> None:
        self._meter.emit(fact)
        if isinstance(fact, CacheRefreshed):
            self._enter(fact)


class Bookkeeping:
    """Enters finished requests, by the prices and estimates of one configuration."""

    def __init__(
        self,
        ledger: Ledger,
        tariffs: Tariffs,
        *,
        estimate: Callable[[Call], Estimate | Usage],
        bills_cancelled: Callable[[str], bool],
        wall_time: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._tariffs = tariffs
        self._estimate = estimate
        self._bills_cancelled = bills_cancelled
        self._wall_time = wall_time

    def cost(self, reply: Reply) -> int | None:
        """What a whole answer costs, in ``prices.UNIT``; None where that isn't known."""
        if reply.cached is not None and reply.cached.served:
            return 0
        if reply.usage is None:
            return None
        return self._tariffs.of(reply.upstream, reply.model).cost(reply.usage, self._wall_time())

    def enter(self, ended: Ended) -> None:
        """Note a request that is over."""
        key, call = ended.key, ended.call
        entry = Entry(
            at=self._wall_time(),
            request=ended.request_id,
            tenant=key.tenant,
            key_id=key.id,
            tier=key.tier,
            operation=ended.operation.value,
            outcome=ended.outcome,
            status=ended.status,
            duration=ended.duration,
            first_token=ended.first_event,
        )
        if call is not None:
            entry.tier = call.tier
            entry.model, entry.route, entry.stream = _name(call.model), call.route, call.stream
            self._account(entry, call, ended.reply, ended.failure, ended.characters)
        self._ledger.note(entry)

    def enter_refresh(self, refreshed: CacheRefreshed) -> None:
        """Note what the cache fetched anew, if that was an upstream's work and not another call's."""
        call = refreshed.call
        if not call.attempts:
            return
        last = call.attempts[-1]
        entry = Entry(
            at=self._wall_time(),
            request=call.id,
            tenant=call.tenant,
            key_id=call.key,
            tier=call.tier,
            operation=call.operation.value,
            outcome=refreshed.outcome,
            status=0,
            duration=last.duration,
            first_token=last.first_event,
            model=_name(call.model),
            route=call.route,
            stream=call.stream,
            kind=EXTRA,
            requests=0,
        )
        self._account(entry, call, refreshed.reply, None, call.delivered)
        if entry.upstream:
            self._ledger.note(entry)

    def _account(
        self, entry: Entry, call: Call, reply: Reply | None, failure: GatewayError | None, characters: int
    ) -> None:
        usage, estimated = consumption(call, reply, failure, characters=characters, estimate=self._estimate)
        if reply is not None:
            entry.served_model = _name(reply.model)
            entry.cache_hit = reply.cached is not None and reply.cached.served
            entry.upstream = "" if entry.cache_hit else reply.upstream
        elif estimated:
            sent = next(each for each in reversed(call.attempts) if each.outcome == CANCELLED)
            entry.upstream, entry.served_model = sent.upstream, _name(sent.model)
        usage = _sound(usage)
        billed = reply is not None or self._bills_cancelled(entry.upstream)
        self._fill(entry, usage, estimated=estimated, billed=billed)
        if len(call.attempts) > 1 and not (entry.cache_hit or _shared(call)):
            self._note_extras(entry, usage, call)

    def _fill(self, entry: Entry, usage: Usage, *, estimated: bool, billed: bool) -> None:
        entry.input, entry.output = usage.input, usage.output
        entry.cached_input, entry.reasoning = usage.cached_input, usage.reasoning
        entry.estimated = estimated
        if billed and (usage.input or usage.output):
            entry.cost = self._tariffs.of(entry.upstream, entry.served_model).cost(usage, entry.at)

    def _note_extras(self, entry: Entry, usage: Usage, call: Call) -> None:
        """Note what is billed beside the answer: nobody tells its tokens, they are taken for the answer's."""
        answering = _answering(entry, call)
        for attempt in billed_attempts(call.attempts, self._bills_cancelled):
            if attempt is answering or attempt.outcome == OK:
                continue
            extra = replace(
                entry,
                outcome=attempt.outcome,
                duration=attempt.duration,
                first_token=attempt.first_event,
                upstream=attempt.upstream,
                served_model=_name(attempt.model),
                kind=EXTRA,
                requests=0,
                cache_hit=False,
            )
            self._fill(extra, replace(usage, cost=None), estimated=True, billed=True)
            self._ledger.note(extra)


def _shared(call: Call) -> bool:
    """Whether attempts go on for another call, which inherits all of them."""
    return any(attempt.outcome == PENDING for attempt in call.attempts)


def _answering(entry: Entry, call: Call) -> Attempt | None:
    """The attempt that the request's own entry accounts for."""
    for attempt in reversed(call.attempts):
        if attempt.upstream == entry.upstream and attempt.outcome != LOST:
            return attempt
    return None


def _sound(usage: Usage) -> Usage:
    """Counts that a database takes, and parts that are no more than their whole."""
    given, written = min(usage.input, _MOST_TOKENS), min(usage.output, _MOST_TOKENS)
    if usage.cached_input <= given == usage.input and usage.reasoning <= written == usage.output:
        return usage
    return Usage(given, written, min(usage.cached_input, given), min(usage.reasoning, written), usage.cost)


def _name(text: str) -> str:
    return text[:_LONGEST_NAME].replace("\0", "")

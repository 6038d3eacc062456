"""From a finished request to its entries in the usage ledger: what it used, what that cost and what it took.

A request is one entry. Attempts that a provider bills beside the answer, such as the loser of a hedge where
it bills what was cancelled, are entries of their own, and so is what the cache fetches anew and what vectors
it has made; failed attempts are nobody's cost. What they took of energy is the request's, as wasted.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from gateway.energy import Rates, Spent
from gateway.ledger import Ledger
from gateway.prices import Tariffs
from gateway.stores.keys import Key
from gateway.stores.ledger import EXTRA, Entry, Wasted
from policies.billing import billed_attempts, worked
from policies.consumption import consumption
from policies.errors import GatewayError
from policies.facts import CacheRefreshed, Fact, PromptEmbedded
from policies.ports import Meter
from policies.service import CANCELLED, LOST, OK, PENDING, Attempt, Call, Estimate, Operation, Reply, Usage

Errand = CacheRefreshed | PromptEmbedded
"""What the cache asks upstreams for, beside the call that caused it."""

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


class ErrandsEntered:
    """A ``Meter`` in front of ``meter`` that has ``enter`` hear of what the cache asked upstreams for."""

    def __init__(self, meter: Meter, enter: Callable[[Errand], None]) -> None:
        self._meter = meter
        self._enter = enter

    def emit(self, fact: Fact) -> None:
        self._meter.emit(fact)
        if isinstance(fact, Errand):
            self._enter(fact)


class Bookkeeping:
    """Enters finished requests, by the prices and estimates of one configuration."""

    def __init__(  # noqa: PLR0913 - its ports
        self,
        ledger: Ledger,
        tariffs: Tariffs,
        rates: Rates,
        *,
        estimate: Callable[[Call], Estimate | Usage],
        bills_cancelled: Callable[[str], bool],
        wall_time: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._tariffs = tariffs
        self._rates = rates
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

    def energy(self, reply: Reply) -> Spent | None:
        """What a whole answer took of energy; None where nobody counted its tokens."""
        if reply.cached is not None and reply.cached.served:
            return Spent()
        return self._rates.spent(reply.upstream, reply.model, reply.usage)

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

    def enter_errand(self, errand: Errand) -> None:
        """Note what the cache asked for, if that was an upstream's work and not another call's."""
        call = errand.call
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
            outcome=errand.outcome,
            status=0,
            duration=last.duration,
            first_token=last.first_event,
            model=_name(call.model),
            route=call.route,
            stream=call.stream,
            kind=EXTRA,
            requests=0,
        )
        self._account(entry, call, errand.reply, None, call.delivered)
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
        others = len(call.attempts) - bool(entry.upstream)
        if others > 0 and not (entry.cache_hit or _shared(call)):
            self._account_others(entry, usage, call)

    def _fill(self, entry: Entry, usage: Usage, *, estimated: bool, billed: bool) -> None:
        entry.input, entry.output = usage.input, usage.output
        entry.cached_input, entry.reasoning = usage.cached_input, usage.reasoning
        entry.estimated = estimated
        if usage.input or usage.output:
            spent = self._rates.of(entry.upstream, entry.served_model).spent(usage)
            entry.energy, entry.measured, entry.flops = spent
            if billed:
                entry.cost = self._tariffs.of(entry.upstream, entry.served_model).cost(usage, entry.at)

    def _account_others(self, entry: Entry, usage: Usage, call: Call) -> None:
        """Account for the attempts beside the answer: those that are billed, and what the others took."""
        answering = _answering(entry, call)
        others = [each for each in call.attempts if each is not answering and each.outcome != OK]
        billed = billed_attempts(others, self._bills_cancelled) if usage.input or usage.output else []
        self._note_extras(entry, usage, billed)
        unpaid = [each for each in others if worked(each) and each not in billed]
        if unpaid:
            prompt = Usage(input=usage.input or self._estimate(call).input)
            entry.wasted = [
                Wasted(each.upstream, self._rates.of(each.upstream, each.model).spent(prompt).amount)
                for each in unpaid
            ]
            entry.energy += entry.energy_wasted

    def _note_extras(self, entry: Entry, usage: Usage, billed: Iterable[Attempt]) -> None:
        """Note what is billed beside the answer: nobody tells its tokens, they are taken for the answer's."""
        usage = Usage(usage.input, usage.output, usage.cached_input, usage.reasoning)
        for attempt in billed:
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
            self._fill(extra, usage, estimated=True, billed=True)
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
    cached, reasoning = min(usage.cached_input, given), min(usage.reasoning, written)
    return replace(usage, input=given, output=written, cached_input=cached, reasoning=reasoning)


def _name(text: str) -> str:
    return text[:_LONGEST_NAME].replace("\0", "")

"""The one abstraction: a Service opens a Reply, a Layer wraps a Service.

A service has the shape of ``httpx.AsyncClient.stream()``: an asynchronous context manager.
Entering it returns only when the first content event (or the whole unary body) is in hand;
leaving it means that the reply ended, failed or was cancelled. Three things follow:

- a permit held across the ``yield`` lasts for the whole stream, not until its headers;
- retry, failover and hedging are free until the first content event and impossible after it:
  a layer that opens its inner service again after yielding gets ``RuntimeError`` from Python;
- errors in the middle of a stream and the client's cancellation surface at each layer's ``yield``.

Laws of a layer: it raises a ``GatewayError``, it never answers with one; no multi-yield generator
holds a permit, a timeout or a task group (PEP 789); whoever consumes events half-way closes them.
"""

import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from policies.limits import Allotment

from policies.cache.directives import UNSAID, Directives
from policies.record import record


class Operation(StrEnum):
    """What the client asks for; the value is the path below the API's base URL."""

    CHAT = "chat/completions"
    COMPLETION = "completions"
    EMBEDDING = "embeddings"


@record
class Usage:
    """Tokens as the upstream counted them. ``cached_input`` and ``reasoning`` are parts, not additions.

    ``cost`` is what it says that the answer costs, in dollars; few say that. ``joules`` and ``flops`` are
    what it says that the answer took, ``measured`` tells that the joules are a counter's.
    """

    input: int = 0
    output: int = 0
    cached_input: int = 0
    reasoning: int = 0
    cost: float | None = None
    joules: float | None = None
    measured: bool = False
    flops: float | None = None


class CacheState(StrEnum):
    """Where a reply came from: the cache, or past it."""

    HIT = "hit"
    MISS = "miss"
    STALE = "stale"
    SEMANTIC = "semantic"
    BYPASS = "bypass"


_SERVED = frozenset({CacheState.HIT, CacheState.STALE, CacheState.SEMANTIC})


@record
class CacheStatus:
    """What the cache did for a call. ``age`` is in seconds, ``tier`` names what held the answer.

    ``saved`` is what the answer used when an upstream made it; ``similarity`` is that of a prompt that
    was not the same.
    """

    state: CacheState
    age: float = 0.0
    tier: str = ""
    saved: Usage | None = None
    similarity: float | None = None

    @property
    def served(self) -> bool:
        """Whether no upstream was asked for this call, so that it used no tokens."""
        return self.state in _SERVED


PENDING = "pending"
OK = "ok"
CANCELLED = "cancelled"
LOST = "lost"


@dataclass(slots=True)
class Attempt:
    """One upstream tried for a call, entered into the call's history as it begins.

    ``upstream`` is the account's name. ``outcome`` is "pending", "ok", "cancelled" (the client went
    away), "lost" (cancelled by us, since another attempt of the call answered first) or the name of the
    error's class; times are in seconds, and ``first_event`` is None as long as none came. ``began`` is on
    the injected clock.
    """

    upstream: str
    model: str
    outcome: str = PENDING
    duration: float = 0.0
    first_event: float | None = None
    began: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether it ended in an error."""
        return self.outcome not in {PENDING, OK, CANCELLED, LOST}

    @property
    def waited_until(self) -> float:
        """When its first content came, or its end; infinite while neither has come."""
        if self.first_event is not None:
            return self.began + self.first_event
        under_way = self.outcome in {PENDING, LOST} and not self.duration
        return math.inf if under_way else self.began + self.duration


class Trace(Protocol):
    """A call's trace, as far as others refer to it."""

    @property
    def exemplar(self) -> str | None:
        """Its id, if it is kept; None where nobody will find it."""
        ...


@dataclass(slots=True, eq=False)
class Call:
    """One client request: its body, passed through opaquely, and the facts that policies decide on.

    ``route`` is the configured name or glob that ``model`` matched. ``key`` is the id of its sender's key.
    ``trace`` is the caller's own, which no policy looks at.
    ``arrived`` and ``deadline`` are in seconds on the injected clock, ``queued`` is how long it waited
    for its turn, at first and before retries, ``coalesced`` how long for an answer that another call was
    getting. ``attempts`` is the call's
    history, appended to by whoever tried an upstream; ``delivered`` is how many characters of the answer's
    text its consumer took, who counts them. ``estimate`` is what it will probably take, once
    somebody asked. ``allotment`` is all that limits its sender, ``allowances`` what is left of that, the
    binding one first.
    """

    id: str
    operation: Operation
    model: str
    body: Mapping[str, Any]
    stream: bool = False
    route: str = ""
    tenant: str = ""
    tier: str = ""
    key: str = ""
    trace: Trace | None = None
    arrived: float = 0.0
    deadline: float = math.inf
    queued: float = 0.0
    coalesced: float = 0.0
    attempts: list[Attempt] = field(default_factory=list)
    delivered: int = 0
    estimate: "Estimate | None" = None
    allotment: "Allotment | None" = None
    allowances: Sequence["Allowance"] = ()
    directives: Directives = UNSAID
    fingerprint: str | None = None

    def overhead(self, first_event: float) -> float:
        """What part of the time to the first event was spent waiting for none: no upstream, turn or call.

        Attempts may run side by side, and go on after the first event.
        """
        first = self.arrived + first_event
        waited, until = 0.0, self.arrived
        for attempt in self.attempts:
            begun, over = max(attempt.began, until), min(attempt.waited_until, first)
            if over > begun:
                waited += over - begun
                until = over
        return max(0.0, first_event - waited - self.queued - self.coalesced)


@dataclass(slots=True, eq=False)
class Event:
    """One message of a reply: the JSON text of a stream's chunk, or the whole unary body.

    ``text`` is the answer's text that it adds; ``content`` tells whether it carries any part of the
    answer (text, reasoning, a tool call, a whole body), which role-only and empty deltas don't.
    ``bookkeeping`` marks a chunk that exists only because the gateway asked for usage.
    """

    data: bytes
    content: bool = True
    text: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    bookkeeping: bool = False


@record
class Headroom:
    """What an upstream says is left of its limits (x-ratelimit-*); resets in seconds, None where unsaid."""

    remaining_requests: int | None = None
    reset_requests: float | None = None
    remaining_tokens: int | None = None
    reset_tokens: float | None = None


class Estimate(NamedTuple):
    """What a call will take, in tokens, before anybody counted them.

    ``output`` is the most that the answer may have, ``likely_output`` what it will probably have, and
    ``asked`` what its client said of that, None where nothing. ``counted`` is the input by the model's
    vocabulary alone, ``media`` the part of it that stands for pictures and the like.
    """

    input: int
    output: int
    likely_output: int
    asked: int | None = None
    counted: int = 0
    media: int = 0


class Allowance(NamedTuple):
    """What is left of one limit of ours; ``reset`` is the seconds until all of it is there again.

    ``dimension`` is a value of ``policies.ratelimit.Dimension``; ``bucket`` names what counts it.
    """

    bucket: str
    dimension: str
    limit: float
    remaining: float
    reset: float


async def nothing() -> AsyncIterator[Event]:
    """Yield no event: what a reply holds until it is opened."""
    return
    yield


@dataclass(slots=True, eq=False)
class Reply:
    """An answer under way. ``events`` begins with what came before the first content event.

    ``usage`` is filled in as events pass; ``complete`` becomes true when the upstream ended the
    answer properly. A reply that is left before that was abandoned by its consumer. ``at_hand`` tells
    whether the next event is there already, so that what came together can be passed on together.
    ``cached`` is what the cache did, None where the route has none.
    """

    upstream: str
    model: str
    events: AsyncIterator[Event] = field(default_factory=nothing)
    stream: bool = False
    usage: Usage | None = None
    complete: bool = False
    headroom: Headroom | None = None
    at_hand: Callable[[], bool] = bool
    cached: CacheStatus | None = None


class Service(Protocol):
    """Opens a reply for a call. Raises ``policies.errors.GatewayError`` and nothing else."""

    def __call__(self, call: Call, /) -> AbstractAsyncContextManager[Reply]: ...


Layer = Callable[[Service], Service]


def stack(layers: Sequence[Layer], service: Service) -> Service:
    """Wrap ``service`` so that the first of ``layers`` is the outermost."""
    for layer in reversed(layers):
        service = layer(service)
    return service

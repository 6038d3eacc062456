"""What is stored of an answer: a whole body, as a unary call gets it, and where it came from.

Either way of asking fills and is filled: a stream is stored as the body that it adds up to (``assemble``),
and replayed as a stream that adds up to the body (``replay``).
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from policies.cache.replay import chunks, text_of
from policies.ports import Clock
from policies.service import CacheStatus, Call, Event, Reply, Usage

COMPLETE = frozenset({"stop", "tool_calls", "function_call"})
"""Values of ``finish_reason`` with which a model has said all that it had to say."""


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """A complete answer. ``created`` is when its upstream was asked, in seconds since the epoch.

    ``key`` is the fingerprint of the calls that it answers, ``scope`` whose they are, ``model`` the name that
    they asked for; ``upstream`` and ``served_model`` gave it.
    """

    key: str
    scope: str
    model: str
    upstream: str
    served_model: str
    created: float
    body: bytes
    usage: Usage | None = None

    def age(self, now: float) -> float:
        """Seconds since it was asked for, never below 0, whatever another machine's clock says."""
        return max(0.0, now - self.created)


class Near(NamedTuple):
    """An answer to a prompt that isn't the same; ``verify`` asks for the true one beside it."""

    answer: CachedAnswer
    similarity: float
    verify: bool = False


def is_complete(body: Mapping[str, Any]) -> bool:
    """Whether every choice of a body ended as its model wanted; embeddings have none."""
    choices = body.get("choices")
    if choices is None:
        return bool(body.get("data"))
    return bool(choices) and all(choice.get("finish_reason") in COMPLETE for choice in choices)


@asynccontextmanager
async def opened(
    answer: CachedAnswer, call: Call, status: CacheStatus, *, pace: float, clock: Clock
) -> AsyncIterator[Reply]:
    """A reply that plays the answer: as one body, or as a stream with ``pace`` seconds between its parts."""
    reply = Reply(answer.upstream, answer.served_model, stream=call.stream, cached=status)
    reply.at_hand = lambda: not pace and not reply.complete
    async with aclosing(_play(answer, call, reply, pace, clock)) as events:
        reply.events = events
        yield reply


async def _play(
    answer: CachedAnswer, call: Call, reply: Reply, pace: float, clock: Clock
) -> AsyncGenerator[Event, None]:
    if not call.stream:
        reply.complete = True
        yield Event(answer.body)
        return
    first = True
    for chunk, last in chunks(json.loads(answer.body), usage_wanted=wants_usage(call), split=pace > 0):
        if pace and not first:
            await clock.sleep(pace)
        first = False
        reply.complete = last
        yield Event(json.dumps(chunk, separators=(",", ":")).encode(), text=text_of(chunk))


def wants_usage(call: Call) -> bool:
    """Whether the caller asks for the chunk of a stream that tells its usage."""
    options = call.body.get("stream_options")
    return isinstance(options, Mapping) and bool(options.get("include_usage"))

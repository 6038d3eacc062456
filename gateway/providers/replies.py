"""Answers of an upstream as replies: the first content is held, and nothing cut passes for whole.

A 200 that is blank, keep-alive only, HTML or an error body is a failure like any other; so is an answer
whose ``finish_reason`` says that the upstream gave it up.

A message of a stream that can't be read may have held text, and going on without it would hand out a text
with a hole in it: the stream is interrupted, to be carried on elsewhere. It is skipped where nothing can
be lost: when every choice is finished, and when it has no brace in it, so that it never was a chunk.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import orjson

from gateway.providers import classify
from gateway.providers.chunks import read_chunk, read_usage
from gateway.providers.encoding import decoded
from gateway.wire.sse import DONE, EventDecoder
from policies.arrivals import Arrivals
from policies.errors import StreamInterrupted, UpstreamBusy, UpstreamError, UpstreamUnavailable
from policies.service import Event, Reply

_MAX_SHORT_BODY = 64 * 1024
_NOT_A_STREAM = ("application/json", "text/html")
_GIVEN_UP: dict[str, type[UpstreamError]] = {
    "insufficient_system_resource": UpstreamBusy,  # DeepSeek's word for "server busy" in mid-answer
    "abort": UpstreamUnavailable,
    "error": UpstreamUnavailable,
}
"""Values of ``finish_reason`` that end no answer: the upstream stopped before its model did."""


async def read_refusal(response: httpx.Response, upstream: str, wall_time: float) -> UpstreamError:
    """The error that an answer with a status other than 200 stands for."""
    try:
        body = await read_bounded(response)
    except classify.TRANSPORT_ERRORS:
        body = b""
    return classify.from_response(upstream, response.status_code, response.headers.raw, body, wall_time)


async def read_bounded(response: httpx.Response) -> bytes:
    """A body that should be short: its beginning where it isn't."""
    body = bytearray()
    async for chunk in decoded(response):
        body += chunk
        if len(body) > _MAX_SHORT_BODY:
            break
    return bytes(body)


async def open_whole(response: httpx.Response, reply: Reply) -> None:
    """Read a unary answer to its end into ``reply``. Raises ``UpstreamError``."""
    try:
        body = b"".join([chunk async for chunk in decoded(response)]).strip()
    except classify.TRANSPORT_ERRORS as error:
        raise UpstreamUnavailable(f"{reply.upstream}: the connection was lost in the answer.") from error
    if not body:
        raise UpstreamUnavailable(f"{reply.upstream}: answered 200 with a blank body.")
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise UpstreamUnavailable(f"{reply.upstream}: answered 200 with something else than JSON.") from None
    if not isinstance(parsed, dict):
        raise UpstreamUnavailable(f"{reply.upstream}: answered 200 with no JSON object.")
    if parsed.get("error"):
        raise classify.from_error_in_ok(reply.upstream, parsed["error"])
    answers = parsed.get("choices") or parsed.get("data")
    if not isinstance(answers, list) or not answers:
        raise UpstreamUnavailable(f"{reply.upstream}: answered 200 without an answer.")
    for answer in answers:
        reason = answer.get("finish_reason") if isinstance(answer, dict) else None
        if isinstance(reason, str) and reason in _GIVEN_UP:
            raise _given_up(reply.upstream, reason)
    reply.usage = read_usage(parsed)
    reply.complete = True
    reply.events = _once(Event(body, usage=reply.usage))


async def open_stream(
    response: httpx.Response, reply: Reply, *, usage_wanted: bool, choices: int = 1
) -> None:
    """Read a stream up to its first content and hand the rest to ``reply``. Raises ``UpstreamError``.

    A chunk that carries nothing but usage is marked as bookkeeping unless ``usage_wanted``. ``choices`` is
    how many were asked for.
    """
    if response.headers.get("content-type", "").startswith(_NOT_A_STREAM):
        await open_whole(response, reply)
        raise UpstreamUnavailable(f"{reply.upstream}: answered a stream's request without a stream.")
    stream = _ChunkStream(decoded(response), reply, usage_wanted=usage_wanted, choices=choices)
    await stream.hold_first_content()
    reply.events = stream
    reply.at_hand = stream.at_hand


class _ChunkStream(Arrivals):
    """The events of a streamed answer; iterating raises ``StreamInterrupted`` unless it ends whole.

    Whole means that every choice got its ``finish_reason``. A missing [DONE] after that is no fault, and
    nor is anything else. A stream that ends properly may have fewer choices than were asked for, since
    not every upstream knows of several.
    """

    def __init__(
        self, chunks: AsyncIterator[bytes], reply: Reply, *, usage_wanted: bool, choices: int
    ) -> None:
        super().__init__()
        self._chunks = chunks
        self._reply = reply
        self._usage_wanted = usage_wanted
        self._choices = choices
        self._decoder = EventDecoder()
        self._open: set[int] = set()
        self._finished: set[int] = set()
        self._started = False
        self._ended = False
        self._failure: UpstreamError | None = None

    async def hold_first_content(self) -> None:
        while not self._started:
            if not await self.read():
                raise UpstreamUnavailable(f"{self._reply.upstream}: the stream held no answer.")

    def at_hand(self) -> bool:
        return bool(self.arrived)

    async def read(self) -> bool:  # noqa: C901, PLR0912 - in one piece, as a call would be one for each event
        if self._ended:
            if self._failure is not None:
                raise self._failure
            return False
        watch = self.watch
        if watch is not None:
            now = watch.now  # looked up as an attribute and then called, it costs less than as a method
            watch.since = now()
        try:
            chunk = await anext(self._chunks)
        except asyncio.CancelledError:
            if watch is not None:
                watch.cancelled()
            raise
        except StopAsyncIteration:
            for data in self._decoder.flush():
                self._take(data)
            self._end()
        except classify.TRANSPORT_ERRORS:
            self._fail("the connection was lost in the stream")
        else:
            for data in self._decoder.feed(chunk):
                self._take(data)
        if watch is not None:
            arrived = self.arrived
            if arrived and (arrived[0].content or any(event.content for event in arrived)):
                watch.since, watch.left = None, watch.limit
            else:
                watch.nothing_came()
        return True

    def _take(self, data: bytes) -> None:
        if self._ended:
            return
        if data == DONE:
            self._end()
            return
        try:
            chunk = orjson.loads(data)
            error = chunk.get("error")
            if error:
                self._fail_with_error_object(error)
                return
            event = read_chunk(data, chunk)
            self._note(event, chunk.get("choices") or ())
        except (orjson.JSONDecodeError, AttributeError, TypeError):
            if not self._is_whole() and (b"{" in data or b"}" in data):
                self._fail("the stream held a malformed chunk")
            return
        if not self._ended:
            self.arrived.append(event)

    def _note(self, event: Event, choices: Sequence[dict[str, Any]]) -> None:
        for choice in choices:
            index = choice.get("index") or 0
            reason = choice.get("finish_reason")
            if reason in _GIVEN_UP:
                self._fail_with(_given_up(self._reply.upstream, reason))
                return
            if reason:
                self._finished.add(index)
                self._open.discard(index)
            elif index not in self._finished:
                self._open.add(index)
        if event.usage is not None:
            self._reply.usage = event.usage
            event.bookkeeping = not choices and not self._usage_wanted
        self._started = self._started or event.content or event.finish_reason is not None

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._finished and not self._open:
            self._reply.complete = True
        elif self._started:
            self._fail("the stream ended without a finish_reason")

    def _is_whole(self) -> bool:
        """Whether nothing can follow that belongs to the answer."""
        return not self._open and len(self._finished) >= self._choices

    def _fail(self, what: str) -> None:
        self._fail_with(UpstreamUnavailable(f"{self._reply.upstream}: {what}."))

    def _fail_with_error_object(self, error: object) -> None:
        self._fail_with(classify.from_error_in_ok(self._reply.upstream, error))

    def _fail_with(self, failure: UpstreamError) -> None:
        self._ended = True
        if self._is_whole():
            self._reply.complete = True
        else:
            self._failure = StreamInterrupted(failure.message) if self._started else failure


def _given_up(upstream: str, reason: str) -> UpstreamError:
    return _GIVEN_UP[reason](f"{upstream}: gave its answer up half-way ({reason}).")


async def _once(event: Event) -> AsyncIterator[Event]:
    yield event

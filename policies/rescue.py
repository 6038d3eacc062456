"""Stream rescue: carry on, at another upstream, an answer that broke after part of it was delivered.

A gateway that only retries before the first byte hands every later fault to the client: of the faults
in the public failover benchmarks, the cut and the stalled stream are the ones that no gateway mended.
The way out is that of llm-d's and Ray Serve's migration of requests, seen from outside the model: the
delivered text is a prefix, and somebody goes on from it. Two ways, in this order:

- continue: a target that accepts an assistant prefill gets the delivered text and writes on. Not
  where tools or a response format are asked for, since the prefill would take part in them.
- restart: the same call is made again, and its answer is held back while it reproduces what was
  delivered. If it does, the whole answer is exactly the second one, so this is safe for any body.
  If it says something else, it is dropped; a second restart is worth its prompt only where the same
  call gives the same text (temperature 0 or a seed).

Otherwise the stream ends with ``StreamInterrupted``. What can't be cut is never carried on: a tool
call that was half delivered, several choices, log probabilities, reasoning without text after it.

This is the only layer that opens a second reply after the first event. The broken one is left first,
with its error, so its permit is free, its health is told, and ``call.attempts`` shows whom to avoid.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, NoReturn

from policies.arrivals import arrivals
from policies.errors import DeadlineExceeded, GatewayError, StreamInterrupted, UpstreamError
from policies.facts import StreamRescued
from policies.ports import Meter
from policies.service import Call, Event, Reply, Service
from policies.splice import Diverged, Splice, Transcript, may_continue, may_rescue, repeatable, with_prefill


@dataclass(frozen=True, slots=True)
class RescueOptions:
    """``on_stream_break`` "error" turns the rescue off; ``attempts`` is how often a call is carried on."""

    on_stream_break: Literal["rescue", "error"] = "rescue"
    attempts: int = 2

    def __post_init__(self) -> None:
        if self.on_stream_break not in ("rescue", "error"):
            raise ValueError(f"on_stream_break is {self.on_stream_break!r}: choose rescue or error")
        if self.attempts < 1:
            raise ValueError(
                f"the rescue's attempts are {self.attempts}: give 1 or more, or on_stream_break: error"
            )


class Rescue:
    """Layer above failover: streams that break are carried on, or end with ``StreamInterrupted``.

    ``continuing`` is a stack over those targets of the route that accept an assistant prefill, or None
    where there are none. It gets the call as ``with_prefill`` makes it: the last message is the
    assistant's, with ``"prefix": true``, which the provider's adapter spells in its provider's way.
    """

    def __init__(
        self, inner: Service, options: RescueOptions, *, continuing: Service | None, meter: Meter
    ) -> None:
        self.inner = inner
        self.options = options
        self.continuing = continuing
        self.meter = meter

    def __call__(self, call: Call) -> AbstractAsyncContextManager[Reply]:
        return _Stream(self, call) if call.stream else self.inner(call)


class _Stream:
    """One call's stream: the reply that is open now, and what was delivered so far.

    It owns the open reply, so that the generator of events holds nothing across its yields (PEP 789).
    ``reply`` is the first one all the time: it is what the client's side reads from.
    """

    def __init__(self, layer: Rescue, call: Call) -> None:
        self._layer = layer
        self._call = call
        self._left = layer.options.attempts if layer.options.on_stream_break == "rescue" else 0
        self._continuing = layer.continuing
        self._transcript = Transcript(call)
        self._splice: Splice | None = None
        self._way = ""
        self._prefilled = False
        self._opened: AbstractAsyncContextManager[Reply] | None = None

    async def __aenter__(self) -> Reply:
        self.reply = self._current = reply = await self._open(self._layer.inner, self._call)
        self._source = arrivals(reply.events)
        reply.events = self._events = self._carried_on()
        return reply

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            await self._events.aclose()
        finally:
            suppressed = await self._close(kind, error, trace)
        return suppressed

    async def _close(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        opened, self._opened = self._opened, None
        return await opened.__aexit__(kind, error, trace) if opened is not None else None

    async def _carried_on(self) -> AsyncGenerator[Event]:
        transcript = self._transcript
        take, take_text, plain = transcript.add, transcript.texts.append, False
        while True:
            failure: UpstreamError | Diverged | None = None
            source, splice, more = self._source, self._splice, True
            arrived, read = source.arrived, source.read
            try:
                while splice is None and more:  # the common way: each call here would be one for every event
                    while arrived:
                        event = arrived.popleft()
                        if plain and event.text and event.finish_reason is None and event.usage is None:
                            take_text(event.text)
                        else:
                            take(event)
                            plain = transcript.plain
                        yield event
                    more = await read()
                if splice is not None:
                    async for event in source:
                        for rest in self._join(splice, event):
                            take(rest)
                            yield rest
            except (UpstreamError, Diverged) as error:
                failure = error
            if self._is_whole():
                self._finish()
                return
            await self._leave(failure or StreamInterrupted("The upstream's answer ended unfinished."))
            await self._take_over()

    def _join(self, splice: Splice, event: Event) -> Sequence[Event]:
        joined = splice.feed(event)
        if splice.matched and self._way:
            self._tell(self._way)
            self._way = ""
        for rest in joined:
            if rest.usage is not None:
                self.reply.usage = rest.usage
        return joined

    def _is_whole(self) -> bool:
        """Whether the answer came to its end, be it without [DONE] or with a fault after its end."""
        if self._splice is not None and not self._splice.matched:
            return False
        # Of several choices one may be finished while another is cut.
        return self._current.complete or (self._transcript.finished and may_rescue(self._call))

    def _finish(self) -> None:
        self.reply.complete = True
        if self._splice is not None and self._current.usage is not None:
            self.reply.usage = self._splice.total(self._current.usage)

    async def _leave(self, failure: UpstreamError | Diverged) -> None:
        """Close the open reply; its layers see what it failed with. Another text is no failure of it."""
        try:
            if isinstance(failure, Diverged):
                self._diverged()
                await self._close(None, None, None)
            else:
                self._failure = failure
                await self._close(type(failure), failure, failure.__traceback__)
        except GatewayError:
            return

    def _diverged(self) -> None:
        """The new reply says something else: at least the way that led there isn't taken again."""
        self._tell("diverged")
        if self._prefilled:
            self._continuing = None
        elif not repeatable(self._call):
            self._left = 0

    async def _take_over(self) -> None:
        """Open a reply that carries the answer on, or raise ``StreamInterrupted``."""
        if not (self._transcript.resumable and may_rescue(self._call)):
            self._give_up("refused")
        if not self._left:
            self._give_up("exhausted")
        self._left -= 1
        for way, prefix, service in self._ways():
            try:
                splice = Splice(self._transcript, prefix)
                tokens = self._transcript.tokens[1]
                call = with_prefill(self._call, prefix, tokens) if prefix else self._call
                current = await self._open(service, call)
            except DeadlineExceeded:
                raise
            except (GatewayError, Diverged):
                continue
            self._splice, self._way, self._prefilled = splice, way, bool(prefix)
            self._current, self._source = current, arrivals(current.events)
            self.reply.upstream, self.reply.model = current.upstream, current.model
            return
        self._give_up("unreachable")

    def _ways(self) -> Iterator[tuple[str, str, Service]]:
        """Outcome, prefill and service of each way. Some providers refuse a prefill that ends in space."""
        prefix = self._transcript.text.rstrip()
        if self._continuing is not None and prefix and may_continue(self._call):
            yield "continued", prefix, self._continuing
        yield "restarted", "", self._layer.inner

    async def _open(self, service: Service, call: Call) -> Reply:
        opened = service(call)
        reply = await opened.__aenter__()
        self._opened = opened
        return reply

    def _give_up(self, outcome: str) -> NoReturn:
        self._tell(outcome)
        if isinstance(self._failure, StreamInterrupted):
            raise self._failure
        raise StreamInterrupted(
            "The answer broke off at the upstream and could not be carried on. Send the request again.",
            retry_after=self._failure.retry_after,
        ) from self._failure

    def _tell(self, outcome: str) -> None:
        failure = type(self._failure).__name__
        self._layer.meter.emit(StreamRescued(self._call, outcome, failure, len(self._transcript.text)))

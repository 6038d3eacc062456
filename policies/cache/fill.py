"""Filling the cache: what an upstream says is written down as it passes, and kept if it is whole."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from policies.cache.answer import CachedAnswer, is_complete
from policies.cache.assemble import Unclear, assemble
from policies.cache.key import scope_of
from policies.cache.reuse import CacheOptions
from policies.opening import opening
from policies.ports import CacheStore, SemanticIndex
from policies.service import Call, Event, Reply, Service

Trusted = Callable[[Call, Reply], bool]
"""Whether a route stands by an answer: one of its fallback isn't what it is asked for again later."""


class Fill:
    """Layer around the upstreams, below the one that joins equal calls: stores each answer once.

    Only what ended properly, with a ``finish_reason`` of the model's own, and comes whole from where
    the route leads first.
    """

    def __init__(  # noqa: PLR0913 - its ports
        self,
        inner: Service,
        options: CacheOptions,
        *,
        store: CacheStore,
        trusted: Trusted,
        wall_time: Callable[[], float],
        semantic: SemanticIndex | None = None,
    ) -> None:
        self._inner = inner
        self._options = options
        self._store = store
        self._trusted = trusted
        self._wall_time = wall_time
        self._semantic = semantic

    @opening
    async def __call__(self, call: Call) -> AsyncGenerator[Reply]:
        if call.fingerprint is None:
            async with self._inner(call) as reply:
                yield reply
            return
        asked = self._wall_time()
        record = _Record()
        async with self._inner(call) as reply, aclosing(record.listen(reply.events)) as events:
            reply.events = events
            yield reply
        if record.ended and reply.complete and self._trusted(call, reply):
            self._keep(call, reply, record, asked)

    def _keep(self, call: Call, reply: Reply, record: "_Record", asked: float) -> None:
        try:
            data = record.body(stream=reply.stream)
        except Unclear:
            return
        if data is None:
            return
        assert call.fingerprint is not None  # noqa: S101 - asked before
        answer = CachedAnswer(
            key=call.fingerprint,
            scope=scope_of(call, shared=self._options.shared),
            model=call.model,
            upstream=reply.upstream,
            served_model=reply.model,
            created=asked,
            body=data,
            usage=reply.usage,
        )
        self._store.put(answer, self._options.keep)
        if self._semantic is not None:
            self._semantic.learn(call, answer)


class _Record:
    """What an answer's events said."""

    __slots__ = ("_datas", "ended")

    def __init__(self) -> None:
        self._datas: list[bytes] = []
        self.ended = False

    async def listen(self, events: AsyncIterator[Event]) -> AsyncGenerator[Event, None]:
        """Pass the events on."""
        async for event in events:
            self._datas.append(event.data)
            yield event
        self.ended = True

    def body(self, *, stream: bool) -> bytes | None:
        """The whole body, None where the model was cut short. Raises Unclear."""
        if stream:
            whole = assemble(self._datas)
            return json.dumps(whole, separators=(",", ":")).encode() if is_complete(whole) else None
        data = b"".join(self._datas)
        return data if is_complete(json.loads(data)) else None

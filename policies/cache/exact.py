"""The cache of whole answers: the same call is answered as it was before.

Freshness as in RFC 9111; stale-while-revalidate and stale-if-error as in RFC 5861: an old answer goes out at
once while a new one is fetched beside it, and in an outage it goes out as long as it is of any use.
A semantic index is asked where no equal call was answered; some of what it gives is fetched anew beside it,
which tells whether it was right.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from policies.cache.answer import CachedAnswer, Near, opened
from policies.cache.directives import UNSAID
from policies.cache.key import fingerprint, scope_of
from policies.cache.reuse import CacheOptions, Freshness, excuses_stale, freshness, may_reuse
from policies.errors import GatewayError, NotCached
from policies.facts import CacheAsked, CacheRefreshed
from policies.observe import outcome_of
from policies.opening import opening
from policies.ports import CacheStore, Clock, Meter, SemanticIndex
from policies.service import CANCELLED, CacheState, CacheStatus, Call, Reply, Service

Spawn = Callable[[Coroutine[Any, Any, None]], object]
"""Runs a coroutine beside the request that asked for it."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where a route's answers are: ``space`` stands for what the route leads to."""

    store: CacheStore
    space: str = ""
    semantic: SemanticIndex | None = None


class Cache:
    """Layer around all that asks upstreams. Writes ``call.fingerprint`` and ``reply.cached``.

    Raises NotCached where the caller wants nothing else than a cached answer.
    """

    def __init__(  # noqa: PLR0913 - its ports
        self,
        inner: Service,
        options: CacheOptions,
        *,
        shelf: Shelf,
        clock: Clock,
        wall_time: Callable[[], float],
        spawn: Spawn,
        meter: Meter,
    ) -> None:
        self._inner = inner
        self._options = options
        self._shelf = shelf
        self._clock = clock
        self._wall_time = wall_time
        self._spawn = spawn
        self._meter = meter
        self._refreshing: set[tuple[str, bool]] = set()

    @opening
    async def __call__(self, call: Call) -> AsyncGenerator[Reply]:
        options = self._options
        if not may_reuse(call, options, call.directives):
            async with self._asked(call, CacheState.BYPASS) as reply:
                yield reply
            return
        scope = scope_of(call, shared=options.shared)
        call.fingerprint = key = fingerprint(call, scope=scope, space=self._shelf.space)
        found = None if call.directives.no_cache else await self._shelf.store.get(key)
        use = Freshness.GONE
        if found is not None:
            answer, tier = found
            use = freshness(answer.age(self._wall_time()), options, call.directives)
            if use is Freshness.FRESH:
                async with self._given(call, answer, CacheState.HIT, tier) as reply:
                    yield reply
                return
            if use is Freshness.REVALIDATE and not call.directives.only_if_cached:
                self._refresh(call, key)
                async with self._given(call, answer, CacheState.STALE, tier) as reply:
                    yield reply
                return
        near = await self._near(call, scope, key) if use is Freshness.GONE else None
        if near is not None:
            state, tier = CacheState.SEMANTIC, "semantic"
            async with self._given(call, near.answer, state, tier, near.similarity) as reply:
                yield reply
            return
        # An equal call may have been answered while this one looked. From here to the layer that joins equal
        # calls nothing waits, so that none of them is asked twice.
        if use is Freshness.GONE and (landed := self._landed(call, key)) is not None:
            async with self._given(call, landed[0], CacheState.HIT, landed[1]) as reply:
                yield reply
            return
        if call.directives.only_if_cached:
            self._meter.emit(CacheAsked(call, CacheStatus(CacheState.MISS)))
            raise NotCached("The answer is not in the cache, and only-if-cached allows nothing else.")
        began = False
        try:
            async with self._asked(call, CacheState.MISS) as reply:
                began = True
                yield reply
                return
        except GatewayError as error:
            if began or use is Freshness.GONE or not excuses_stale(error):
                raise
        async with self._given(call, answer, CacheState.STALE, tier) as reply:
            yield reply

    def _landed(self, call: Call, key: str) -> tuple[CachedAnswer, str] | None:
        """A fresh answer that this process has by now."""
        if call.directives.no_cache:
            return None
        found = self._shelf.store.at_hand(key)
        if found is None:
            return None
        age = found[0].age(self._wall_time())
        return found if freshness(age, self._options, call.directives) is Freshness.FRESH else None

    async def _near(self, call: Call, scope: str, key: str) -> Near | None:
        """An answer to a similar prompt; where it is to be verified, the true one is fetched beside it."""
        if self._shelf.semantic is None or call.directives.no_cache:
            return None
        near = await self._shelf.semantic.nearest(call, scope)
        if near is None:
            return None
        age = near.answer.age(self._wall_time())
        if freshness(age, self._options, call.directives) is not Freshness.FRESH:
            return None
        if near.verify and not call.directives.only_if_cached:
            self._refresh(call, key)
        return near

    @asynccontextmanager
    async def _asked(self, call: Call, state: CacheState) -> AsyncIterator[Reply]:
        """An upstream's answer; a layer below may have found that another call asks for the same."""
        async with self._inner(call) as reply:
            if reply.cached is None:
                reply.cached = CacheStatus(state)
            self._meter.emit(CacheAsked(call, reply.cached))
            yield reply

    def _given(
        self, call: Call, answer: CachedAnswer, state: CacheState, tier: str, similarity: float | None = None
    ) -> AbstractAsyncContextManager[Reply]:
        age = answer.age(self._wall_time())
        status = CacheStatus(state, age, tier, answer.usage, similarity)
        self._meter.emit(CacheAsked(call, status))
        return opened(answer, call, status, pace=self._options.pace, clock=self._clock)

    def _refresh(self, call: Call, key: str) -> None:
        """Fetch a new answer beside the call, unless that is being done."""
        name = (key, call.stream)
        if name in self._refreshing:
            return
        self._refreshing.add(name)
        anew = replace(
            call,
            arrived=self._clock.now(),
            deadline=inf,
            queued=0.0,
            attempts=[],
            delivered=0,
            directives=UNSAID,
        )
        self._spawn(self._fetch(anew, name))

    async def _fetch(self, call: Call, name: tuple[str, bool]) -> None:
        reply: Reply | None = None
        outcome = CANCELLED
        try:
            async with self._inner(call) as reply:
                async for event in reply.events:
                    call.delivered += len(event.text)
            outcome = outcome_of(reply, None)
        except GatewayError as error:
            outcome = type(error).__name__
        finally:
            self._refreshing.discard(name)
            self._meter.emit(CacheRefreshed(call, outcome, reply))

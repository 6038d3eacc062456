"""The feed of the live page: a view of the gateway once a second, for a bounded number of listeners."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime

from gateway import energy
from gateway.api.cache_view import CacheView, cache_view
from gateway.dashboard.board import Board
from gateway.dashboard.journal import Finished, Journal
from gateway.dashboard.merging import merge
from gateway.dashboard.views import AttemptView, GatewayView, RequestView, SpendView, WorkerView
from gateway.metrics.caches import CacheTotals
from gateway.prices import UNIT
from gateway.serving import Serving
from gateway.stores.database import AWAY
from gateway.stores.usage import Period, Row

MOST_LISTENERS = 32
"""More than these a worker turns away: each costs it a rendering and a socket."""

_INTERVAL = 1.0
_FRESH = 0.8
_PUBLISH_INTERVAL = 0.5
_BOOKS_INTERVAL = 5.0


class Live:
    """What this worker sees, and through ``board`` the others. Run ``publish`` as a task."""

    def __init__(
        self, serving: Serving, journal: Journal, board: Board, cache_totals: Callable[[], CacheTotals]
    ) -> None:
        self._serving = serving
        self._journal = journal
        self._board = board
        self._cache_totals = cache_totals
        self._listeners = 0
        self._ended = asyncio.Event()
        self._looking = asyncio.Lock()
        self._view: GatewayView | None = None
        self._looked = self._read = -float("inf")
        self._cache: CacheView | None = None
        self._today: list[SpendView] | None = None

    @property
    def full(self) -> bool:
        """Whether as many listen as may."""
        return self._listeners >= MOST_LISTENERS

    def end(self) -> None:
        """Let all listeners go, since the worker drains; they come back to another."""
        self._ended.set()

    async def views(self) -> AsyncGenerator[GatewayView]:
        """A view now and once a second, until the worker drains."""
        self._listeners += 1
        try:
            while not self._ended.is_set():
                yield await self.look()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), _INTERVAL)
        finally:
            self._listeners -= 1

    async def look(self) -> GatewayView:
        """The gateway now; those who ask at the same time share one view."""
        async with self._looking:
            now = self._serving.clock.now()
            if self._view is None or now - self._looked >= _FRESH:
                self._board.watch()
                await self._read_books(now)
                mine = self._mine()
                self._view = merge(
                    [mine, *self._board.others(mine.worker)],
                    self._serving.tiers.tiers,
                    workers=self._board.workers,
                    cache=self._cache,
                    today=self._today,
                )
                self._looked = now
            return self._view

    async def publish(self) -> None:
        """While somebody watches at another worker, show it what this one sees; until cancelled."""
        while self._board.workers > 1:
            await self._serving.clock.sleep(_PUBLISH_INTERVAL)
            if self._board.watched:
                self._board.publish(self._mine())

    def _mine(self) -> WorkerView:
        serving, journal = self._serving, self._journal
        now = serving.wall_time()
        running, waiting = serving.queues.counts()
        return WorkerView(
            worker=os.getpid(),
            at=now,
            upstreams=serving.upstreams.reports(),
            running=running,
            waiting=waiting,
            calls=journal.calls.series(now),
            shed=journal.shed.series(now),
            refused=journal.refused.series(now),
            first_tokens=journal.first_tokens.series(now),
            first_token_seconds=journal.first_token_seconds.series(now),
            requests=[_request(finished, serving.rates) for finished in journal.requests],
        )

    async def _read_books(self, now: float) -> None:
        """Read what costs more to know: the cache's totals and today's part of the ledger."""
        if now - self._read < _BOOKS_INTERVAL:
            return
        self._read = now
        found = cache_view(self._cache_totals())
        self._cache = found if found.models else None
        today = datetime.fromtimestamp(self._serving.wall_time(), UTC).date()
        try:
            rows = await self._serving.stores.usage.sums(Period(today, today), ["model"], {})
        except AWAY:
            self._today = None
        else:
            self._today = sorted(
                (_spend(row) for row in rows),
                key=lambda spend: (-spend.cost, -spend.requests),
            )


def _spend(row: Row) -> SpendView:
    joules = {name: row[name] / energy.UNIT for name in ("energy", "energy_measured")}
    return SpendView(**{**row, **joules, "cost": row["cost"] / UNIT})


def _request(finished: Finished, rates: energy.Rates) -> RequestView:
    spent = rates.spent(finished.upstream, finished.served_model, finished.usage)
    return RequestView(
        at=datetime.fromtimestamp(finished.at, UTC),
        id=finished.request_id,
        tenant=finished.tenant,
        tier=finished.tier,
        model=finished.model,
        outcome=finished.outcome,
        duration=finished.duration,
        first_token=finished.first_token,
        queued=finished.queued,
        cache=finished.cached,
        attempts=[AttemptView(**_named(asdict(attempt))) for attempt in finished.attempts],
        energy=None if spent is None else spent.amount / energy.UNIT,
        measured=spent is not None and spent.measured,
    )


def _named(attempt: dict[str, object]) -> dict[str, object]:
    return {name: attempt[name] for name in AttemptView.model_fields}

"""All upstreams of a worker.

Routes that lead to the same upstream share it, and it outlives a reload of the configuration as long
as its provider's settings stay the same: a limit once found isn't searched for again.
"""

import asyncio
import weakref
from collections.abc import Iterator

from gateway.parts import Parts
from gateway.providers.dialect import Account
from gateway.providers.probes import probe_check
from gateway.providers.statuspage import status_reader
from gateway.settings import LocalProvider, Provider
from gateway.stores.orders import Action, Order
from gateway.upstreams.terms import price_of, schedule_of
from gateway.upstreams.upstream import Upstream, UpstreamReport
from policies.concurrency import AdaptiveOptions, ConcurrencyLimit
from policies.health import Health, HealthOptions
from policies.permits import Permits
from policies.probe import ProbeOptions, Prober, ProbeSchedule
from policies.schedule import CurrentTerms
from policies.status import StatusHint, StatusOptions, StatusWatcher
from policies.throttle import AcceptRatio, ThrottleOptions


class Upstreams:
    """The upstreams that any service leads to. One that nothing leads to any more is forgotten."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._known: weakref.WeakValueDictionary[tuple[str, str], Upstream] = weakref.WeakValueDictionary()
        self._shared: weakref.WeakValueDictionary[tuple[str, str], Permits] = weakref.WeakValueDictionary()
        self._hints: weakref.WeakValueDictionary[str, StatusHint] = weakref.WeakValueDictionary()
        self._drained: dict[str, bool] = {}
        self._probes: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[Upstream]:
        return iter(
            sorted(self._known.values(), key=lambda upstream: (upstream.account.name, upstream.model))
        )

    def get(
        self, provider: Provider | LocalProvider, account: Account, model: str, *, passed_on: bool
    ) -> Upstream:
        """The upstream of this account and model; a new one where its settings are new.

        ``passed_on`` tells that the model's name is the client's choice, behind a glob.
        """
        upstream = self._known.get((account.name, model))
        if upstream is None or upstream.provider != provider or upstream.account != account:
            upstream = self._make(provider, account, model, passed_on=passed_on)
            self._known[account.name, model] = upstream
        return upstream

    def reports(self) -> list[UpstreamReport]:
        """All upstreams as they are now."""
        now = self._parts.clock.now()
        return [upstream.report(now) for upstream in self]

    def knows(self, name: str) -> bool:
        """Whether an operator may call an upstream so."""
        return any(name in upstream.names for upstream in self)

    def obey(self, order: Order) -> None:
        """Carry out an operator's order, on those there are and, for a drain, on those to come."""
        now = self._parts.clock.now()
        if order.action is not Action.PROBE:
            self._drained[order.upstream] = order.action is Action.DRAIN
        for upstream in self:
            if order.upstream not in upstream.names:
                continue
            if order.action is Action.DRAIN:
                upstream.health.drain(now)
            elif order.action is Action.RESUME:
                upstream.health.resume(now)
            else:
                self._probe(upstream)

    def _probe(self, upstream: Upstream) -> None:
        task = asyncio.create_task(upstream.prober.probe())
        self._probes.add(task)
        task.add_done_callback(self._probes.discard)

    def _make(
        self, provider: Provider | LocalProvider, account: Account, model: str, *, passed_on: bool
    ) -> Upstream:
        parts = self._parts
        health = Health(account.name, model=model, options=HealthOptions(), rng=parts.rng, meter=parts.meter)
        schedule = schedule_of(provider)
        terms = None if schedule is None else CurrentTerms(schedule, wall=parts.wall_time)
        upstream = Upstream(
            provider=provider,
            account=account,
            model=model,
            passed_on=passed_on,
            health=health,
            permits=self._permits(provider, model, terms),
            ratio=AcceptRatio(ThrottleOptions(), random=parts.rng),
            prober=self._prober(provider, account, model, health),
            terms=terms,
            status=self._status(provider.status_page),
            price=price_of(provider, model),
        )
        if any(self._drained.get(name) for name in upstream.names):
            health.drain(parts.clock.now())
        watching = asyncio.create_task(upstream.prober.run())
        weakref.finalize(upstream, watching.cancel)
        return upstream

    def _permits(self, provider: Provider | LocalProvider, model: str, terms: CurrentTerms | None) -> Permits:
        """The permits of this upstream, or those that all accounts of its quota share."""
        quota = provider.quota
        permits = None if quota is None else self._shared.get((quota, model))
        if permits is None:
            limit = ConcurrencyLimit(
                _limit_options(provider.max_concurrency),
                random=self._parts.rng,
                ceiling=None if terms is None else terms.max_concurrency,
            )
            permits = Permits(limit, clock=self._parts.clock)
            if quota is not None:
                self._shared[quota, model] = permits
        return permits

    def _status(self, page: str | None) -> StatusHint | None:
        """What a status page says; accounts with the same page share its watcher."""
        if page is None:
            return None
        hint = self._hints.get(page)
        if hint is None:
            parts, options = self._parts, StatusOptions()
            hint = self._hints[page] = StatusHint(options)
            reader = status_reader(page, parts.transport)
            watcher = StatusWatcher(hint, reader, options=options, clock=parts.clock)
            weakref.finalize(hint, asyncio.create_task(watcher.run()).cancel)
        return hint

    def _prober(
        self, provider: Provider | LocalProvider, account: Account, model: str, health: Health
    ) -> Prober:
        parts, said = self._parts, provider.probe
        options = ProbeOptions(kind=said.kind, interval=said.interval, paid_per_hour=said.paid_per_hour)
        return Prober(
            health,
            probe_check(account, model, options.kind, parts.transport, parts.wall_time),
            schedule=ProbeSchedule(options, parts.rng),
            clock=parts.clock,
            meter=parts.meter,
        )


def _limit_options(most: int | None) -> AdaptiveOptions:
    """A limit that somebody knows is where to begin; one that nobody knows is found from below."""
    return AdaptiveOptions() if most is None else AdaptiveOptions(initial=most, max_concurrency=most)

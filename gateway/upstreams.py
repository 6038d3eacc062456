"""Upstreams in use: one for each account and model, with what has been learnt of it.

Routes that lead to the same upstream share it, and it outlives a reload of the configuration as long
as its provider's settings stay the same: a limit once found isn't searched for again.
"""

import asyncio
import random
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx

from gateway.providers.dialect import Account
from gateway.providers.probes import probe_check
from gateway.providers.statuspage import status_reader
from gateway.settings import LocalProvider, Provider
from gateway.settings.upkeep import WEEK
from gateway.settings.upkeep import Schedule as ScheduleSettings
from gateway.stores.orders import Action, Order
from policies.concurrency import AdaptiveOptions, ConcurrencyLimit
from policies.health import Health, HealthOptions
from policies.member import PeakEwma
from policies.permits import Permits
from policies.ports import AlarmClock, Meter
from policies.probe import ProbeOptions, Prober, ProbeSchedule
from policies.schedule import CurrentTerms, Schedule, Terms, Window
from policies.status import StatusHint, StatusOptions, StatusWatcher
from policies.throttle import AcceptRatio, ThrottleOptions

_LOCAL_PRICE = 0.001
_UNKNOWN_PRICE = 1.0
_LOCAL_PRIORITY = 100


@dataclass(frozen=True, slots=True)
class Parts:
    """What layers are given: time, chance, ears, and the way out."""

    clock: AlarmClock
    wall_time: Callable[[], float]
    rng: random.Random
    meter: Meter
    transport: httpx.AsyncBaseTransport


@dataclass(eq=False)
class Upstream:
    """One account and model, and what is known of it.

    ``price`` is in US dollars for a million tokens, input and output taken together.
    """

    provider: Provider | LocalProvider
    account: Account
    model: str
    passed_on: bool
    health: Health
    permits: Permits
    ratio: AcceptRatio
    prober: Prober
    terms: CurrentTerms | None
    status: StatusHint | None
    weight: float
    price: float
    priority: int
    latency: PeakEwma = field(default_factory=PeakEwma)

    @property
    def names(self) -> tuple[str, ...]:
        """What an operator may call it: provider, account (provider#2), or account/model."""
        account = self.account.name
        return (account.partition("#")[0], account, f"{account}/{self.model}")

    def report(self, now: float) -> "UpstreamReport":
        """What an operator sees of it."""
        health = self.health.report(now)
        limit = self.permits.limit
        return UpstreamReport(
            upstream=self.account.name,
            model=self.model,
            passed_on=self.passed_on,
            state=health.state.value,
            why=health.why,
            next_probe=health.next_probe,
            limit=limit.limit,
            inflight=limit.inflight,
            waiting=self.permits.waiting,
            held_off=max(0.0, limit.retry_at - now),
            first_token=self.latency.read(now),
            error_ratio=health.error_ratio,
            status_page=None if self.status is None else self.status.indicator,
            weight=self.weight * health.weight_factor * self.share(now),
        )

    def share(self, now: float) -> float:
        """By how much the hour and what its status page admits scale its weight."""
        share = 1.0 if self.terms is None else self.terms.weight()
        return share if self.status is None else share * self.status.factor(now)


@dataclass(frozen=True, slots=True)
class UpstreamReport:
    """One upstream as this process sees it; times in seconds.

    ``passed_on`` tells that the model's name was the client's choice.
    ``next_probe`` is None when nothing is planned, ``first_token`` when it wasn't used lately.
    ``held_off`` is how long it still wants to hear nothing from us.
    """

    upstream: str
    model: str
    passed_on: bool
    state: str
    why: str
    next_probe: float | None
    limit: int
    inflight: int
    waiting: int
    held_off: float
    first_token: float | None
    error_ratio: float
    status_page: str | None
    weight: float


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
        terms = None
        if isinstance(provider, Provider) and provider.schedule is not None:
            terms = CurrentTerms(_schedule(provider.schedule, provider), wall=parts.wall_time)
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
            status=self._status(provider),
            weight=provider.weight if isinstance(provider, Provider) else 1.0,
            price=_price(provider, model),
            priority=provider.priority if isinstance(provider, Provider) else _LOCAL_PRIORITY,
        )
        if any(self._drained.get(name) for name in upstream.names):
            health.drain(parts.clock.now())
        watching = asyncio.create_task(upstream.prober.run())
        weakref.finalize(upstream, watching.cancel)
        return upstream

    def _permits(self, provider: Provider | LocalProvider, model: str, terms: CurrentTerms | None) -> Permits:
        """The permits of this upstream, or those that all accounts of its quota share."""
        quota = provider.quota if isinstance(provider, Provider) else None
        permits = None if quota is None else self._shared.get((quota, model))
        if permits is None:
            most = provider.max_concurrency if isinstance(provider, Provider) else None
            limit = ConcurrencyLimit(
                AdaptiveOptions(max_concurrency=most),
                random=self._parts.rng,
                ceiling=None if terms is None else terms.max_concurrency,
            )
            permits = Permits(limit, clock=self._parts.clock)
            if quota is not None:
                self._shared[quota, model] = permits
        return permits

    def _status(self, provider: Provider | LocalProvider) -> StatusHint | None:
        """What the provider's status page says; accounts with the same page share its watcher."""
        page = provider.status_page if isinstance(provider, Provider) else None
        if page is None:
            return None
        hint = self._hints.get(page)
        if hint is None:
            parts, options = self._parts, StatusOptions()
            hint = self._hints[page] = StatusHint(options)
            watcher = StatusWatcher(
                hint, status_reader(page, parts.transport), options=options, clock=parts.clock
            )
            weakref.finalize(hint, asyncio.create_task(watcher.run()).cancel)
        return hint

    def _prober(
        self, provider: Provider | LocalProvider, account: Account, model: str, health: Health
    ) -> Prober:
        parts = self._parts
        options = ProbeOptions()
        if isinstance(provider, Provider):
            said = provider.probe
            options = ProbeOptions(kind=said.kind, interval=said.interval, paid_per_hour=said.paid_per_hour)
        return Prober(
            health,
            probe_check(account, model, options.kind, parts.transport, parts.wall_time),
            schedule=ProbeSchedule(options, parts.rng),
            clock=parts.clock,
            meter=parts.meter,
        )


def _schedule(settings: ScheduleSettings, provider: Provider) -> Schedule:
    """The configured windows, with the provider's own terms where a window or the hour says nothing."""
    return Schedule(
        zone=settings.zone,
        windows=tuple(
            Window(
                start=window.start,
                end=window.end,
                days=frozenset(WEEK.index(day) for day in window.days),
                terms=Terms(
                    weight=1.0 if window.weight is None else window.weight / provider.weight,
                    max_concurrency=(
                        provider.max_concurrency if window.max_concurrency is None else window.max_concurrency
                    ),
                ),
            )
            for window in settings.windows
        ),
        otherwise=Terms(max_concurrency=provider.max_concurrency),
    )


def _price(provider: Provider | LocalProvider, model: str) -> float:
    """What balancing by price compares: a token in and a token out, in dollars for a million."""
    if isinstance(provider, LocalProvider):
        return _LOCAL_PRICE
    prices = provider.facts.prices
    listed = None if prices is None else prices.models.get(model)
    return _UNKNOWN_PRICE if listed is None else max(listed.input + listed.output, _LOCAL_PRICE)

"""What one worker serves with. A reload of the configuration replaces its parts in place."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

from gateway.access_log import AccessLog
from gateway.bookkeeping import Bookkeeping, Errand, ErrandsEntered
from gateway.cache.caching import Caching, Neighbours
from gateway.changes import Changes
from gateway.claims import Claims
from gateway.counts import Counts
from gateway.energy import Rates
from gateway.estimates import TokenEstimates
from gateway.keyring import Keyring
from gateway.ledger import Ledger, LedgerOptions
from gateway.model_reports import ModelReports
from gateway.parts import Parts
from gateway.prices import Tariffs
from gateway.providers.accounts import accounts_of
from gateway.providers.dialect import Account
from gateway.providers.warmup import warm_up
from gateway.queues import Queues
from gateway.roads import Roads
from gateway.settings import MEMORY, Settings, differences
from gateway.stack import Stacks
from gateway.stores.redis import Nudges
from gateway.stores.stores import Stores
from gateway.tiers import Tiers
from gateway.upstreams import Upstreams
from policies.errors import GatewayError
from policies.limits import RateLimit
from policies.ports import Clock, Meter
from policies.service import Service

if TYPE_CHECKING:
    from gateway.tracing import Tracing

_LOG = logging.getLogger(__name__)


class OpenExchange(Protocol):
    """An answer under way."""

    def interrupt(self, error: GatewayError) -> None:
        """End it with ``error`` now."""
        ...


@dataclass(frozen=True, slots=True)
class Configured:
    """Where the configuration comes from, so that it can be read again.

    ``load`` raises ConfigError; ``local_urls`` gives the base URL of each bundled model server by its
    provider's name; ``announce`` tells the supervisor that there is something new to read.
    """

    load: Callable[[], Settings]
    local_urls: Callable[[], Mapping[str, str]]
    announce: Callable[[], None]


class Serving:
    """The parts that a request meets."""

    def __init__(  # noqa: PLR0913 - its ports
        self,
        configured: Configured,
        settings: Settings,
        stores: Stores,
        parts: Parts,
        *,
        counts: Counts,
        access_log: AccessLog | None,
    ) -> None:
        self._configured = configured
        self.tracing = _tracing(settings, parts)
        if self.tracing is not None:
            parts = self.tracing.around(parts)
        self._parts = parts
        self.upstreams = Upstreams(parts)
        self.queues = Queues(parts)
        self.tiers = Tiers()
        self.estimates = TokenEstimates()
        self.model_reports = ModelReports(lambda: self.settings, configured.local_urls, parts.transport)
        self.counts = counts
        self.claims = Claims(self.tiers, self.estimates, parts.wall_time)
        self.stores = stores
        self.keyring = Keyring(stores.keys)
        self._last_order = 0
        self.clock: Clock = parts.clock
        self.meter: Meter = parts.meter
        self.rng = parts.rng
        self.wall_time = parts.wall_time
        self.started = parts.wall_time()
        self.access_log = access_log
        self.ledger = Ledger(
            stores.ledger, LedgerOptions(), clock=parts.clock, wall_time=parts.wall_time, meter=parts.meter
        )
        self.open_exchanges: set[OpenExchange] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        shared = settings.store.get_secret_value() != MEMORY
        neighbours = Neighbours(stores.engine, counts.client, keeps=shared)
        self.caching = Caching(
            settings.cache,
            neighbours,
            parts,
            spawn=self.spawn,
            meter=ErrandsEntered(parts.meter, self._enter_errand),
        )
        self.changes = self._changes()
        self._apply(settings)

    async def start(self) -> None:
        """Read from the database what has to be known before the first request."""
        self._last_order = await self.stores.orders.last()  # first: what comes meanwhile is then read twice
        for order in await self.stores.orders.standing():
            self.upstreams.obey(order)
        await self.changes.follow()
        self._warm_up()

    def reload(self) -> None:
        """Read the configuration again. Raises ConfigError and changes nothing when it has faults.

        Calls under way go on as they began; ``server``, ``store``, ``cache``, ``database`` and
        ``observability`` keep until a restart.
        """
        self._apply(self._configured.load())
        self._warm_up()
        _LOG.info("the configuration was read again")

    def ask_for_reload(self) -> list[str]:
        """Have the supervisor and every worker reload, this one included; what it changes, in lines.

        Raises ConfigError.
        """
        changes = differences(self.settings, self._configured.load())
        self._configured.announce()
        return changes

    def degraded(self) -> list[str]:
        """A line for each thing that works, and not as well as it should."""
        outage = self.counts.outage
        return [] if outage is None else [f"limits: the shared store is away, each process counts ({outage})"]

    def budgets_left(self) -> dict[tuple[str, int], float]:
        """How many retries each step of each model may still cost, by its name and number."""
        now = self.clock.now()
        return {step: budget.balance(now) for step, budget in self.stacks.budgets.items()}

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` beside the request that asked for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """End what runs beside requests, so that what it used is in the books, and export the last traces."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self.tracing is not None:
            await self.tracing.aclose()

    def _enter_errand(self, errand: Errand) -> None:
        self.books.enter_errand(errand)

    def _warm_up(self) -> None:
        """Have connections to all providers before the first call needs one."""
        self.spawn(warm_up(chain.from_iterable(self._accounts.values()), self._parts.transport, self.clock))

    def _apply(self, settings: Settings) -> None:
        self._accounts = accounts = accounts_of(settings.providers, self._configured.local_urls())
        self.tiers.declare(settings.tiers, settings.tenants)
        self.queues.rule(self.tiers.tiers)
        self.estimates.declare(settings.models)
        roads = Roads(settings.providers, accounts, self.upstreams, self.queues)
        tariffs, self.rates = Tariffs(settings.providers), Rates(settings.providers)
        self.claims.declare(settings.models, tariffs)
        self.books = self._bookkeeping(settings, tariffs, accounts)
        self.stacks = stacks = Stacks(
            roads,
            self._parts,
            self.estimates,
            limit=self._limit,
            caching=self.caching,
            tracing=self.tracing,
        )
        self.catalogue = stacks.catalogue(settings.models)
        admin = settings.admin.key
        self.keyring.declare(settings.keys, None if admin is None else admin.get_secret_value())
        self.settings = settings

    def _changes(self) -> Changes:
        client = self.counts.client
        return Changes(
            self.stores.revisions,
            {
                "keys": self.keyring.refresh,
                "orders": self._follow_orders,
                "tiers": self._follow_definitions,
                "tenants": self._follow_definitions,
            },
            always=self.caching.follow,
            nudges=None if client is None else Nudges(client, self.counts.owner, clock=self.clock),
            clock=self.clock,
        )

    async def _follow_orders(self) -> None:
        """Obey what operators ordered since the last time, at whichever worker."""
        for order in await self.stores.orders.since(self._last_order):
            self.upstreams.obey(order)
            self._last_order = order.number

    async def _follow_definitions(self) -> None:
        tiers, tenants = await self.stores.tiers.all(), await self.stores.tenants.all()
        self.tiers.store(
            {name: stored.definition for name, stored in tiers.items()},
            {name: stored.definition for name, stored in tenants.items()},
        )
        self.queues.rule(self.tiers.tiers)

    def _limit(self, service: Service) -> Service:
        return RateLimit(
            service,
            resolve=self.claims,
            store=self.counts.store,
            slots=self.counts.slots,
            meter=self.meter,
        )

    def _bookkeeping(
        self, settings: Settings, tariffs: Tariffs, accounts: Mapping[str, Sequence[Account]]
    ) -> Bookkeeping:
        self.ledger.keep = settings.ledger.keep
        billing = {each.name for found in accounts.values() for each in found if each.bills_cancelled}
        return Bookkeeping(
            self.ledger,
            tariffs,
            self.rates,
            estimate=self.estimates,
            bills_cancelled=billing.__contains__,
            wall_time=self.wall_time,
        )


def _tracing(settings: Settings, parts: Parts) -> "Tracing | None":
    """What makes traces, imported only where it is wanted."""
    endpoint = settings.observability.otlp
    if endpoint is None:
        return None
    from gateway.tracing import Tracing  # noqa: PLC0415 - needs the extra otel

    return Tracing(endpoint, parts.clock, parts.wall_time)

"""What is kept in the database, each kind in a store of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.settings import Tenant, Tier
from gateway.stores.audit import Audit, Subject
from gateway.stores.definitions import Definitions
from gateway.stores.keys import KeyStore
from gateway.stores.ledger import LedgerStore
from gateway.stores.orders import OrderBook
from gateway.stores.revisions import current
from gateway.stores.usage import UsageReader


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores of one database."""

    engine: AsyncEngine
    keys: KeyStore
    orders: OrderBook
    tiers: Definitions[Tier]
    tenants: Definitions[Tenant]
    audit: Audit
    ledger: LedgerStore
    usage: UsageReader

    @classmethod
    def over(cls, engine: AsyncEngine, wall_time: Callable[[], float]) -> "Stores":
        """The stores over ``engine``. ``wall_time`` gives seconds since the epoch."""
        return cls(
            engine,
            KeyStore(engine, wall_time),
            OrderBook(engine, wall_time),
            Definitions(engine, wall_time, Tier.model_validate, Subject.TIER),
            Definitions(engine, wall_time, Tenant.model_validate, Subject.TENANT),
            Audit(engine, wall_time),
            LedgerStore(engine),
            UsageReader(engine),
        )

    async def revisions(self) -> Mapping[str, int]:
        """A number for each of them that grows with every change."""
        return await current(self.engine)

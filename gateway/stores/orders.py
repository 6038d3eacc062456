"""Operators' orders to upstreams: kept in the database, so that every worker obeys them."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.stores.audit import GATEWAY, Author, Subject, record
from gateway.stores.database import metadata
from gateway.stores.revisions import changing

orders = sa.Table(
    "orders",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("upstream", sa.String, nullable=False),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("given", sa.Float, nullable=False),
)


class Action(StrEnum):
    """What may be ordered."""

    DRAIN = "drain"
    RESUME = "resume"
    PROBE = "probe"


@dataclass(frozen=True, slots=True)
class Order:
    """An order to an upstream, by any of its names. ``number`` grows from order to order."""

    number: int
    upstream: str
    action: Action


class OrderBook:
    """The orders table. ``wall_time`` gives seconds since the epoch."""

    def __init__(self, engine: AsyncEngine, wall_time: Callable[[], float]) -> None:
        self._engine = engine
        self._wall_time = wall_time

    async def give(self, upstream: str, action: Action, by: Author = GATEWAY) -> None:
        """Write an order down; whoever reads next obeys it."""
        at = self._wall_time()
        async with changing(self._engine, "orders") as change:
            row = {"upstream": upstream, "action": action.value, "given": at}
            await change.connection.execute(orders.insert().values(row))
            await record(change.connection, at, by, action.value, subject=Subject.UPSTREAM, name=upstream)

    async def since(self, number: int) -> list[Order]:
        """The orders that came after ``number``, in their order."""
        query = sa.select(orders).where(orders.c.number > number).order_by(orders.c.number)
        async with self._engine.connect() as connection:
            return [_order(row) for row in await connection.execute(query)]

    async def standing(self) -> list[Order]:
        """The last drain or resume of each upstream: what holds until another order."""
        holding = orders.c.action != Action.PROBE.value
        newest = sa.select(sa.func.max(orders.c.number)).where(holding).group_by(orders.c.upstream)
        query = sa.select(orders).where(orders.c.number.in_(newest)).order_by(orders.c.number)
        async with self._engine.connect() as connection:
            return [_order(row) for row in await connection.execute(query)]

    async def last(self) -> int:
        """The number of the newest order; 0 before the first."""
        async with self._engine.connect() as connection:
            number: int | None = (await connection.execute(sa.select(sa.func.max(orders.c.number)))).scalar()
        return number or 0


def _order(row: sa.Row[tuple[object, ...]]) -> Order:
    return Order(row.number, row.upstream, Action(row.action))

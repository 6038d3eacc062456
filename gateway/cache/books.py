"""Where purges are written down: in the Redis that has the answers, else in the database."""

from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.cache.purges import Purge
from gateway.stores.database import metadata
from gateway.stores.redis.connect import AWAY, Client

_KEY = "tidegate:purges"

purges = sa.Table(
    "cache_purges",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("tenant", sa.String),
    sa.Column("model", sa.String),
    sa.Column("key", sa.String),
)


class BookUnreachable(Exception):
    """The purges can't be read or written at the moment."""


class DatabaseBook:
    """The table cache_purges."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, purge: Purge, horizon: float) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(purges.delete().where(purges.c.at < horizon))
            await connection.execute(purges.insert().values(purge._asdict()))

    async def read(self, since: float) -> list[Purge]:
        columns = purges.c.at, purges.c.tenant, purges.c.model, purges.c.key
        query = sa.select(*columns).where(purges.c.at >= since)
        async with self._engine.connect() as connection:
            return [Purge(*row) for row in await connection.execute(query)]


class RedisBook:
    """The sorted set tidegate:purges, of what is covered by its time."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def add(self, purge: Purge, horizon: float) -> None:
        try:
            await self._client.zremrangebyscore(_KEY, "-inf", f"({horizon}")
            await self._client.zadd(_KEY, {orjson.dumps(purge[1:]): purge.at})
        except AWAY as error:
            raise BookUnreachable(str(error)) from error

    async def read(self, since: float) -> list[Purge]:
        try:
            found: Any = await self._client.zrange(_KEY, since, "+inf", byscore=True, withscores=True)
        except AWAY as error:
            raise BookUnreachable(str(error)) from error
        return [Purge(at, *orjson.loads(covered)) for covered, at in found]

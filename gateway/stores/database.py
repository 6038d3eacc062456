"""The SQL database: opening it, and bringing its schema up to date."""

import sqlite3
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, MetaData, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

metadata = MetaData()
"""The tables of all stores, as the newest migration leaves them."""

_MIGRATIONS = Path(__file__).parent / "migrations"


def open_database(url: str) -> AsyncEngine:
    """Open the database at ``url``, such as sqlite:///tidegate.db; nothing is read before the first query."""
    engine = create_async_engine(make_url(url).set(drivername="sqlite+aiosqlite"))
    event.listen(engine.sync_engine, "connect", _configure_sqlite)
    return engine


async def migrate(engine: AsyncEngine) -> None:
    """Bring the schema to the newest version, creating the database where there is none.

    Raises sqlite3.Error where it can't be opened.
    """
    # First without the engine, whose threads would outlive a loop that ends for this reason.
    with closing(sqlite3.connect(engine.url.database or "")) as connection:
        connection.execute("PRAGMA schema_version")
    async with engine.begin() as upgrading:
        await upgrading.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _configure_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    """Let several processes read while one writes, and wait for a lock instead of failing."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()

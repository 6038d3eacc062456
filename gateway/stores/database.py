"""The SQL database: opening it, and bringing its schema up to date.

SQLite where one machine is enough, PostgreSQL where several share what is kept. Both migrate in one
transaction under a lock, so that of several processes that start at once one does it, wholly or not at all.
"""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, MetaData, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from gateway.sqlite import write_ahead

metadata = MetaData()
"""The tables of all stores, as the newest migration leaves them."""

AWAY = (SQLAlchemyError, OSError)
"""What is raised by a database that can't be reached or doesn't answer."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x7469_6465  # "tide", in the space of PostgreSQL's advisory locks
_CONNECT_TIMEOUT = 10.0
_PATIENCE = 5_000
_MIGRATION_PATIENCE = 600_000
"""Milliseconds that SQLite waits for another process's lock."""


class DatabaseUnusable(Exception):
    """The database can't be opened or brought up to date."""


def open_database(url: str) -> AsyncEngine:
    """Open the database at ``url``, such as sqlite:///tidegate.db or postgresql://user:password@host/name.

    Nothing is read before the first query.
    """
    parsed = make_url(url)
    if not _is_sqlite(parsed):
        return _open_postgresql(parsed)
    engine = create_async_engine(parsed.set(drivername="sqlite+aiosqlite"))
    event.listen(engine.sync_engine, "connect", _configure_sqlite)
    return engine


async def migrate(engine: AsyncEngine) -> None:
    """Bring the schema to the newest version, creating a SQLite database where there is none.

    Raises DatabaseUnusable.
    """
    try:
        if _is_sqlite(engine.url):
            # First without the engine, whose threads would outlive a loop that ends for this reason.
            with closing(sqlite3.connect(engine.url.database or "")) as probe:
                write_ahead(probe)
        async with engine.connect() as connection, _alone(connection):
            await connection.run_sync(_upgrade)
    except CommandError as error:
        raise DatabaseUnusable(f"a newer release has written it ({error})") from error
    except (sqlite3.Error, *AWAY) as error:
        raise DatabaseUnusable(str(getattr(error, "orig", None) or error)) from error


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _open_postgresql(url: URL) -> AsyncEngine:
    query = dict(url.query)
    if "sslmode" in query:  # libpq's name, which people know; asyncpg takes the same values as ssl
        query["ssl"] = query.pop("sslmode")
    return create_async_engine(
        url.set(drivername="postgresql+asyncpg", query=query),
        pool_pre_ping=True,
        connect_args={"timeout": _CONNECT_TIMEOUT, "server_settings": {"application_name": "tidegate"}},
    )


@asynccontextmanager
async def _alone(connection: AsyncConnection) -> AsyncIterator[None]:
    """A transaction that no other migration runs beside; an exception takes it all back."""
    if not _is_sqlite(connection.engine.url):
        async with connection.begin():
            await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            yield
        return
    # sqlite3 itself would begin a transaction only before INSERT and its like, and none for DDL.
    await connection.execution_options(isolation_level="AUTOCOMMIT")
    await connection.exec_driver_sql(f"PRAGMA busy_timeout={_MIGRATION_PATIENCE}")
    await connection.exec_driver_sql("BEGIN IMMEDIATE")
    end = "ROLLBACK"
    try:
        yield
        end = "COMMIT"
    finally:
        await connection.exec_driver_sql(end)
        await connection.exec_driver_sql(f"PRAGMA busy_timeout={_PATIENCE}")


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _configure_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    """Wait for another process's lock instead of failing."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_PATIENCE}")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()

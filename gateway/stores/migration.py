"""Brings the database's schema up to date.

In one transaction under a lock, so that of several processes that start at once one does it, wholly or not at
all.
"""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from gateway.sqlite import write_ahead
from gateway.stores.database import AWAY, PATIENCE, is_sqlite, reason

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x7469_6465  # "tide", in the space of PostgreSQL's advisory locks
_MIGRATION_PATIENCE = 600_000
"""Milliseconds that SQLite waits for another process's migration."""


class DatabaseUnusable(Exception):
    """The database can't be opened or brought up to date."""


async def migrate(engine: AsyncEngine) -> None:
    """Bring the schema to the newest version, creating a SQLite database where there is none.

    Raises DatabaseUnusable.
    """
    try:
        if is_sqlite(engine.url):
            # First without the engine, whose threads would outlive a loop that ends for this reason.
            with closing(sqlite3.connect(engine.url.database or "")) as probe:
                write_ahead(probe)
        async with engine.connect() as connection, _alone(connection):
            await connection.run_sync(_upgrade)
    except CommandError as error:
        raise DatabaseUnusable(f"a newer release has written it ({error})") from error
    except (sqlite3.Error, *AWAY) as error:
        raise DatabaseUnusable(reason(error)) from error


@asynccontextmanager
async def _alone(connection: AsyncConnection) -> AsyncIterator[None]:
    """A transaction that no other migration runs beside; an exception takes it all back."""
    if not is_sqlite(connection.engine.url):
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
        await connection.exec_driver_sql(f"PRAGMA busy_timeout={PATIENCE}")


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")

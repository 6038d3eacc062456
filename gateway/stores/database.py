"""The SQL database: SQLite where one machine is enough, PostgreSQL where several share what is kept."""

from sqlalchemy import URL, MetaData, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

metadata = MetaData()
"""The tables of all stores, as the newest migration leaves them."""

AWAY = (SQLAlchemyError, OSError)
"""What is raised by a database that can't be reached or doesn't answer."""

PATIENCE = 5_000
"""Milliseconds that SQLite waits for another process's lock."""

_CONNECT_TIMEOUT = 10.0
_COMMAND_TIMEOUT = 30.0
"""Seconds after which a PostgreSQL that accepts no connection, or doesn't answer a statement, is away."""


def open_database(url: str, *, command_timeout: float | None = _COMMAND_TIMEOUT) -> AsyncEngine:
    """Open the database at ``url``, such as sqlite:///tidegate.db or postgresql://user:password@host/name.

    A statement that PostgreSQL doesn't answer within ``command_timeout`` seconds raises TimeoutError, and
    its connection is given up: a server that fell silent would be waited for as long as TCP does.

    Nothing is read before the first query. Its errors tell no values: they get into logs.
    """
    parsed = make_url(url)
    if not is_sqlite(parsed):
        return _open_postgresql(parsed, command_timeout)
    engine = create_async_engine(parsed.set(drivername="sqlite+aiosqlite"), hide_parameters=True)
    event.listen(engine.sync_engine, "connect", _configure_sqlite)
    return engine


def is_sqlite(url: URL) -> bool:
    """Whether the database is a file of this machine."""
    return url.get_backend_name() == "sqlite"


def reason(error: BaseException) -> str:
    """What an error of ``AWAY`` says, without its statement."""
    return str(getattr(error, "orig", None) or error) or "it does not answer"


def _open_postgresql(url: URL, command_timeout: float | None) -> AsyncEngine:
    query = dict(url.query)
    if "sslmode" in query:  # libpq's name, which people know; asyncpg takes the same values as ssl
        query["ssl"] = query.pop("sslmode")
    return create_async_engine(
        url.set(drivername="postgresql+asyncpg", query=query),
        hide_parameters=True,
        pool_pre_ping=True,
        connect_args={
            "timeout": _CONNECT_TIMEOUT,
            "command_timeout": command_timeout,
            "server_settings": {"application_name": "tidegate"},
        },
    )


def _configure_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    """Wait for another process's lock instead of failing."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={PATIENCE}")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()

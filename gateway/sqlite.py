"""SQLite's write-ahead log, in which several processes read a file while one writes it."""

import sqlite3

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

_PATIENCE = 10.0
_PAUSE = 0.02


def write_ahead(connection: sqlite3.Connection) -> None:
    """Give the connection's file a write-ahead log, which it keeps for good.

    SQLite waits for no lock here, whatever its busy_timeout: of two who make a new file at once, each would
    wait for the other. So it is tried again. Raises sqlite3.Error.
    """
    Retrying(
        retry=retry_if_exception(_is_busy),
        wait=wait_random(0, _PAUSE),
        stop=stop_after_delay(_PATIENCE),
        reraise=True,
    )(connection.execute, "PRAGMA journal_mode=WAL")


def _is_busy(error: BaseException) -> bool:
    return (
        isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
    )

"""SQLite's write-ahead log, asked for by several at once."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier

import pytest

from gateway.sqlite import write_ahead
from tests.kit.processes import PATIENCE

OPENERS = 6


def test_whoever_makes_a_file_at_the_same_moment_gets_the_log(tmp_path):
    together = Barrier(OPENERS)

    def open_and_write(path):
        with closing(sqlite3.connect(path, PATIENCE, isolation_level=None)) as connection:
            together.wait()
            write_ahead(connection)
            connection.execute("CREATE TABLE IF NOT EXISTS t (a)")
            connection.execute("INSERT INTO t VALUES (1)")
            return connection.execute("PRAGMA journal_mode").fetchone()[0]

    with ThreadPoolExecutor(OPENERS) as pool:
        for number in range(50):
            path = tmp_path / f"{number}.db"
            assert list(pool.map(open_and_write, [path] * OPENERS)) == ["wal"] * OPENERS
            with closing(sqlite3.connect(path)) as connection:
                assert connection.execute("SELECT count(*) FROM t").fetchone() == (OPENERS,)


def test_what_no_patience_mends_is_raised_at_once(tmp_path):
    (tmp_path / "t.db").write_bytes(b"no database at all, and longer than the header that one would have" * 9)
    with closing(sqlite3.connect(tmp_path / "t.db")) as connection, pytest.raises(sqlite3.DatabaseError):
        write_ahead(connection)

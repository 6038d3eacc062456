"""The tier that outlives a restart where there is no Redis: answers in a SQLite file of their own.

All workers of a machine share the file. It is bounded by bytes: whoever was asked for longest ago goes.
Losing it costs hits and nothing else, so a file that is damaged is thrown away.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from gateway.cache.codec import Corrupt, Kept, decode, encode
from gateway.cache.purges import Purge
from gateway.cache.tiers import TierSize
from gateway.sqlite import write_ahead
from policies.facts import CacheDropped, CacheEvicted
from policies.ports import Meter

NAME = "disk"
_T = TypeVar("_T")
_MOMENT = 600.0
"""How exactly it is noted when an answer was asked for, in seconds: a note is a write."""
_AT_ONCE = 64
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, tenant TEXT NOT NULL, model TEXT NOT NULL, created REAL NOT NULL,
    until REAL NOT NULL, used REAL NOT NULL, size INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS answers_by_use ON answers (used);
CREATE INDEX IF NOT EXISTS answers_by_end ON answers (until);
CREATE TABLE IF NOT EXISTS total (entries INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO total SELECT 0, 0 WHERE NOT EXISTS (SELECT 1 FROM total);
CREATE TRIGGER IF NOT EXISTS answer_added AFTER INSERT ON answers BEGIN
    UPDATE total SET entries = entries + 1, bytes = bytes + NEW.size;
END;
CREATE TRIGGER IF NOT EXISTS answer_gone AFTER DELETE ON answers BEGIN
    UPDATE total SET entries = entries - 1, bytes = bytes - OLD.size;
END;
"""
_PUT = "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_EXPIRE = "DELETE FROM answers WHERE key IN (SELECT key FROM answers WHERE until <= ? LIMIT ?)"
_EVICT = "DELETE FROM answers WHERE key IN (SELECT key FROM answers ORDER BY used LIMIT ?)"
_PURGE = """
DELETE FROM answers WHERE created <= :at AND (:tenant IS NULL OR tenant = :tenant)
    AND (:model IS NULL OR model = :model) AND (:key IS NULL OR key = :key)
"""


class DiskTier:
    """``capacity`` is in bytes of compressed answers; the file is somewhat larger.

    SQLite waits for locks and disks, so it does that in a thread.
    """

    name = NAME

    def __init__(self, path: Path, capacity: int, *, wall_time: Callable[[], float], meter: Meter) -> None:
        self._path = path
        self._capacity = capacity
        self._wall_time = wall_time
        self._meter = meter
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cache")
        self._connection: sqlite3.Connection | None = None

    async def get(self, key: str) -> Kept | None:
        return await self._run(lambda: self._get(key), None)

    async def put(self, kept: Kept) -> None:
        await self._run(lambda: self._put(kept), None)

    async def discard(self, purge: Purge) -> None:
        await self._run(lambda: self._discard(purge), None)

    async def size(self) -> TierSize | None:
        """Not known before the first answer was asked for, with which the file is opened."""
        return None if self._connection is None else await self._run(self._size, None)

    async def close(self) -> None:
        """Finish what was begun and let go of the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown()

    async def _run(self, work: Callable[[], _T], without: _T) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work, without)

    def _guarded(self, work: Callable[[], _T], without: _T) -> _T:
        try:
            return work()
        except sqlite3.OperationalError:  # locked for long, or the disk is full
            self._meter.emit(CacheDropped(NAME, "unreachable"))
        except (sqlite3.DatabaseError, OSError):
            self._meter.emit(CacheDropped(NAME, "corrupt"))
            self._begin_anew()
        return without

    def _get(self, key: str) -> Kept | None:
        database = self._open()
        row = database.execute("SELECT data, used FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        try:
            kept = decode(row[0], key)
        except Corrupt:
            self._meter.emit(CacheDropped(NAME, "corrupt"))
            database.execute("DELETE FROM answers WHERE key = ?", (key,))
            return None
        now = self._wall_time()
        if now - row[1] > _MOMENT:
            database.execute("UPDATE answers SET used = ? WHERE key = ?", (now, key))
        return kept

    def _put(self, kept: Kept) -> None:
        answer, now = kept.answer, self._wall_time()
        data = encode(kept)
        if len(data) > self._capacity:
            self._meter.emit(CacheDropped(NAME, "oversized"))
            return
        database = self._open()
        row = (answer.key, answer.scope[1:], answer.model, answer.created, kept.until, now, len(data), data)
        database.execute("BEGIN IMMEDIATE")
        with database:
            database.execute("DELETE FROM answers WHERE key = ?", (answer.key,))
            database.execute(_PUT, row)
            self._make_room(database, now)

    def _make_room(self, database: sqlite3.Connection, now: float) -> None:
        expired = database.execute(_EXPIRE, (now, _AT_ONCE)).rowcount
        if expired:
            self._meter.emit(CacheEvicted(NAME, expired, "expired"))
        while self._size_of(database).bytes > self._capacity:
            full = database.execute(_EVICT, (_AT_ONCE,)).rowcount
            self._meter.emit(CacheEvicted(NAME, full, "full"))

    def _discard(self, purge: Purge) -> None:
        gone = self._open().execute(_PURGE, purge._asdict()).rowcount
        if gone:
            self._meter.emit(CacheEvicted(NAME, gone, "purged"))

    def _size(self) -> TierSize | None:
        return self._size_of(self._open())

    @staticmethod
    def _size_of(database: sqlite3.Connection) -> TierSize:
        return TierSize(*database.execute("SELECT entries, bytes FROM total").fetchone())

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch(mode=0o600)
            database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            try:
                database.execute("PRAGMA busy_timeout=2000")
                write_ahead(database)
                database.execute("PRAGMA synchronous=NORMAL")
                database.execute("PRAGMA journal_size_limit=16777216")
                database.executescript(_SCHEMA)
            except sqlite3.Error:
                database.close()
                raise
            self._connection = database
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _begin_anew(self) -> None:
        with suppress(sqlite3.Error):
            self._disconnect()
        self._connection = None
        for ending in ("", "-wal", "-shm"):
            with suppress(OSError):
                self._path.with_name(self._path.name + ending).unlink()

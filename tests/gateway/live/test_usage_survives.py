"""The usage ledger when processes are killed under load, and when its database is locked meanwhile."""

import os
import signal
import sqlite3
import threading
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

from tests.kit import processes
from tests.kit.chat import CHAT, chat, new_id
from tests.kit.lateness import Lateness
from tests.kit.processes import descendants, eventually

LAST_SECOND = 1.0
CLIENTS = 6


class Crowd:
    """Clients that ask one after the other, and know when each of their answers was whole."""

    def __init__(self, gateway):
        self.answered = {}
        self.lateness = Lateness()
        self._gateway = gateway
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def _ask(self):
        while not self._stop.is_set():
            with self._gateway.client() as client:
                try:
                    self._ask_over(client)
                except httpx.TransportError:
                    self._stop.wait(0.05)

    def _ask_over(self, client):
        while not self._stop.is_set():
            identity = new_id()
            headers = {"x-request-id": identity}
            if client.post(CHAT, json=chat("ok"), headers=headers).status_code == 200:
                self.answered[identity] = time.monotonic()

    @contextmanager
    def asking(self):
        for thread in self._threads:
            thread.start()
        try:
            with self.lateness:
                yield self
        finally:
            self.leave()

    def leave(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def served(self, more):
        """Wait until so many more were answered."""
        goal = len(self.answered) + more
        eventually(lambda: len(self.answered) >= goal)


class Book:
    """The ledger's tables, read from beside the gateway."""

    def __init__(self, file):
        self._file = file

    def query(self, text):
        with closing(sqlite3.connect(self._file, timeout=20)) as connection:
            return connection.execute(text).fetchall()

    def requests(self):
        return [request for (request,) in self.query("SELECT request FROM ledger")]

    def assert_sound(self):
        """Nothing is there twice, and the daily sums are those of the rows."""
        requests = self.requests()
        assert len(set(requests)) == len(requests)
        columns = "SUM(requests), SUM(input), SUM(output), SUM(cost)"
        rows = self.query(f"SELECT {columns} FROM ledger")
        assert self.query(f"SELECT {columns} FROM ledger_days") == rows


@pytest.fixture
def file(tmp_path):
    """The database's, in memory where it can be: for how late a disk is, no test can make allowances."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder) / "keys.db"


@pytest.fixture
def launched(upstream, file, tmp_path):
    """Start a gateway whose answers have a price, by ``server``'s settings."""

    def run(**server):
        prices = {"*": {"input": 2, "output": 8}}
        url, key = f"{upstream.url}/v1", processes.UPSTREAM_KEY
        provider = {"preset": "vllm", "base_url": url, "api_key": key, "prices": prices}
        return processes.gateway(
            tmp_path, processes.settings(upstream.url, file, providers={"up": provider}, server=server)
        )

    return run


def assert_only_last_seconds_are_lost(book, crowd, *kills):
    """Every answer that isn't in the book came within a second before one of the kills.

    A machine that is late itself is given its lateness.
    """
    there = set(book.requests())
    last = LAST_SECOND + crowd.lateness.worst
    lost = [at for identity, at in crowd.answered.items() if identity not in there]
    # What a process wrote before its end may be read by its client a moment later.
    old = [at for at in lost if not any(-last < at - kill < last for kill in kills)]
    assert not old, f"{len(old)} of {len(crowd.answered)} lost, at {old[:5]}; kills at {kills}"


def test_a_killed_worker_takes_at_most_its_last_second_along(launched, file):
    with launched(workers=2) as gateway:
        eventually(lambda: len(gateway.workers()) == 2)
        book = Book(file)
        crowd, kills = Crowd(gateway), []
        with crowd.asking():
            for _ in range(2):
                crowd.served(150)
                victim = gateway.workers()[0]
                kills.append(time.monotonic())
                os.kill(victim, signal.SIGKILL)
                crowd.served(150)
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
        assert_only_last_seconds_are_lost(book, crowd, *kills)
        book.assert_sound()


def test_a_killed_gateway_takes_at_most_its_last_second_along(launched, file):
    with launched(workers=2) as gateway:
        eventually(lambda: len(gateway.workers()) == 2)
        crowd = Crowd(gateway)
        with crowd.asking():
            crowd.served(300)
            killed = time.monotonic()
            for process in [gateway.pid, *descendants(gateway.pid)]:
                with suppress(ProcessLookupError):  # its counters' server ends by itself when it does
                    os.kill(process, signal.SIGKILL)
        book = Book(file)
        assert_only_last_seconds_are_lost(book, crowd, killed)
        book.assert_sound()
    with launched() as again, again.client() as client:
        identity = new_id()
        assert client.post(CHAT, json=chat("ok"), headers={"x-request-id": identity}).status_code == 200
        eventually(lambda: identity in book.requests())
    book.assert_sound()


def test_a_gateway_that_is_stopped_loses_nothing(launched, file):
    with launched(workers=2) as gateway:
        crowd = Crowd(gateway)
        with crowd.asking():
            crowd.served(100)
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
    book = Book(file)
    assert set(crowd.answered) <= set(book.requests())
    book.assert_sound()


def test_while_the_database_is_locked_requests_are_answered_and_kept(launched, file):
    with launched() as gateway:
        book = Book(file)
        crowd = Crowd(gateway)
        with closing(sqlite3.connect(file, isolation_level=None)) as holder, crowd.asking():
            crowd.served(20)
            holder.execute("BEGIN IMMEDIATE")
            gateway.line_with("the usage ledger can't be written, entries are kept: .*locked")
            crowd.served(50)
            before = len(book.requests())
            crowd.served(50)
            assert len(book.requests()) == before
            holder.execute("ROLLBACK")
            crowd.leave()
            eventually(lambda: set(crowd.answered) <= set(book.requests()))
        gateway.line_with("the usage ledger is written again")
        book.assert_sound()

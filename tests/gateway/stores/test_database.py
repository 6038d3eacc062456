import os
import signal
import socket

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from gateway.stores import database
from gateway.stores.database import open_database
from gateway.stores.ledger import LedgerStore
from gateway.stores.migration import DatabaseUnusable, migrate
from gateway.stores.orders import orders
from gateway.stores.usage import Selection, UsageReader
from tests.kit.ledger import make_entry


async def test_an_error_does_not_tell_what_was_to_be_written(engines):
    row = {"upstream": "the value", "action": None, "given": 1.0}
    with pytest.raises(SQLAlchemyError) as raised:
        async with engines[0].begin() as connection:
            await connection.execute(sa.insert(orders), [row, row])
    assert "INSERT INTO orders" in str(raised.value)
    assert "the value" not in str(raised.value).partition("DETAIL")[0]


async def test_a_postgresql_that_falls_silent_is_given_up_and_asked_anew(postgres_server):
    url = postgres_server.new_database()
    patient = open_database(url, command_timeout=None)
    await migrate(patient)
    await patient.dispose()
    engine = open_database(url, command_timeout=2.0)
    async with engine.connect() as connection:
        process = (await connection.exec_driver_sql("SELECT pg_backend_pid()")).scalar_one()
    os.kill(process, signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError):
            await LedgerStore(engine).write([make_entry(id="a")])
        await LedgerStore(engine).write([make_entry(id="a")])
        (row,), _ = await UsageReader(engine).page(Selection(0.0, 1e11), most=10)
        assert row["id"] == "a"
    finally:
        os.kill(process, signal.SIGCONT)
        await engine.dispose()


async def test_a_server_that_accepts_and_says_nothing_is_told_in_words(monkeypatch):
    monkeypatch.setattr(database, "_CONNECT_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        engine = open_database(f"postgresql://user@127.0.0.1:{listener.getsockname()[1]}/none")
        with pytest.raises(DatabaseUnusable, match="does not answer"):
            await migrate(engine)
        await engine.dispose()

"""Every earlier version of the database comes to the newest with each of its rows, on both kinds."""

import asyncio
import re
from datetime import date
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from gateway.stores import migration
from gateway.stores.database import metadata, open_database
from gateway.stores.keys import KeyStore, Role
from gateway.stores.ledger import LedgerStore
from gateway.stores.migration import DatabaseUnusable, migrate
from gateway.stores.usage import Period, Selection, UsageReader
from tests.kit.ledger import make_entry

VERSIONS = sorted(
    path.name[:4] for path in (Path(migration.__file__).parent / "migrations/versions").glob("0*.py")
)
KEY = {
    "id": "key_1",
    "name": "n",
    "role": "owner",
    "tenant": "acme",
    "tier": "pro",
    "models": ["gpt-*"],
    "hint": "tga-abc",
    "digest": "d" * 64,
    "created": 1.5,
    "expires": 2.5,
}
SAMPLES = {str: "x", int: 7, float: 1.5, bool: True, object: {"a": 1}, date: date(2026, 11, 22)}


def upgrade(connection, version):
    config = Config()
    config.set_main_option("script_location", str(Path(migration.__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, version)


def tables_of(connection):
    """The tables as they are, without Alembic's own."""
    found = sa.MetaData()
    found.reflect(connection)
    return [table for table in found.sorted_tables if table.name != "alembic_version"]


def sample(table):
    return {column.name: SAMPLES[column.type.python_type] for column in table.columns}


def fill(connection):
    """Write a row into every table that has none."""
    for table in tables_of(connection):
        if connection.execute(sa.select(table)).first() is None:
            row = KEY if table.name == "keys" else sample(table)
            connection.execute(table.insert().values(row))


def rows_of(connection):
    return {
        table.name: [dict(row) for row in connection.execute(sa.select(table)).mappings()]
        for table in tables_of(connection)
    }


def shape(table):
    return {(column.name, column.nullable, column.type.python_type) for column in table.columns}


@pytest.fixture
async def engine(database_url):
    opened = open_database(database_url)
    yield opened
    await opened.dispose()


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_row_of_an_earlier_version_is_there_after_the_migration(engine, version):
    async with engine.begin() as connection:
        await connection.run_sync(upgrade, version)
        await connection.run_sync(fill)
        before = await connection.run_sync(rows_of)
    await migrate(engine)
    async with engine.connect() as connection:
        after = await connection.run_sync(rows_of)
    assert all(before.values())
    for table, rows in before.items():
        kept = [{name: row[name] for name in rows[0]} for row in after[table]]
        assert all(row in kept for row in rows), table
    (key,) = await KeyStore(engine, lambda: 0.0).list()
    assert (key.role, key.models, key.limits, key.old_digest) == (Role.OWNER, ("gpt-*",), None, None)


async def test_the_tables_are_those_that_the_stores_expect(engines):
    async with engines[0].connect() as connection:
        found = {table.name: shape(table) for table in await connection.run_sync(tables_of)}
    expected = {table.name: shape(table) for table in metadata.sorted_tables}
    assert {name: found.get(name) for name in expected} == expected


async def test_of_many_that_start_at_once_one_migrates(database_url):
    engines = [open_database(database_url) for _ in range(4)]
    await asyncio.gather(*(migrate(engine) for engine in engines))
    await asyncio.gather(*(KeyStore(engine, lambda: 0.0).create(name="n", tenant="t") for engine in engines))
    assert len(await KeyStore(engines[0], lambda: 0.0).list()) == 4
    for engine in engines:
        await engine.dispose()


async def test_a_migration_that_fails_leaves_the_database_as_it_was(engine, monkeypatch):
    def half(connection):
        upgrade(connection, "0002")
        raise OSError("the disk is full")

    monkeypatch.setattr(migration, "_upgrade", half)
    with pytest.raises(DatabaseUnusable, match="the disk is full"):
        await migrate(engine)
    monkeypatch.undo()
    async with engine.connect() as connection:
        assert await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names()) == []
    await migrate(engine)
    assert await KeyStore(engine, lambda: 0.0).list() == []


async def test_a_database_of_a_newer_release_is_refused_in_words(engines):
    async with engines[0].begin() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(DatabaseUnusable, match="newer release"):
        await migrate(engines[1])


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("postgresql://127.0.0.1:9/none", "refused|failed"),
        ("sqlite:////no/such/folder/tidegate.db", "unable to open"),
    ],
)
async def test_a_database_that_cannot_be_reached_is_told_in_words(url, word):
    engine = open_database(url)
    with pytest.raises(DatabaseUnusable) as caught:
        await migrate(engine)
    assert re.search(word, str(caught.value))
    await engine.dispose()


async def test_rows_from_before_energy_was_kept_have_none_and_add_up_with_those_after(engine):
    async with engine.begin() as connection:
        await connection.run_sync(upgrade, "0006")
        await connection.run_sync(fill)
    await migrate(engine)
    await LedgerStore(engine).write([make_entry(id="new", energy=2_000_000, measured=True, flops=1e9)])
    reader = UsageReader(engine)
    rows, _ = await reader.page(Selection(0.0, 1e11), most=10)
    assert [(row["energy"], row["measured"], row["energy_wasted"], row["flops"]) for row in rows] == [
        (2_000_000, True, 0, 1e9),
        (None, False, 0, None),
    ]
    (total,) = await reader.sums(Period(date(2026, 1, 1), date(2027, 1, 1)), [], {})
    assert (total["requests"], total["energy"], total["energy_measured"]) == (7 + 1, 2_000_000, 2_000_000)

import asyncio
import sqlite3
from collections import Counter
from dataclasses import replace
from datetime import date

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.stores.database import open_database
from gateway.stores.ledger import ANSWER, EXTRA, GROUPS, SUMS, LedgerStore, daily_sums, day_of, days, ledger
from gateway.stores.usage import BadCursor, Period, Selection, UsageReader
from tests.kit.ledger import NOON, make_entry

EVER = Period(date(2026, 1, 1), date(2027, 12, 31))
ALWAYS = Selection(0.0, 1e11)


@pytest.fixture
def store(engines):
    return LedgerStore(engines[0])


@pytest.fixture
def reader(engines):
    return UsageReader(engines[1])


async def count(engine):
    async with engine.connect() as connection:
        return (await connection.execute(sa.select(sa.func.count()).select_from(ledger))).scalar_one()


async def test_rows_and_sums_are_written_together(store, reader):
    await store.write([make_entry(id="a"), make_entry(id="b", input=1, cost=None, estimated=True)])
    (row,) = await reader.sums(EVER, ["day", "model"], {"tenant": "acme"})
    assert (row["day"], row["model"], row["requests"]) == (day_of(NOON), "chat", 2)
    assert (row["input"], row["output"], row["cost"]) == (11, 10, 30)
    assert (row["unpriced"], row["estimated"]) == (1, 1)
    rows, cursor = await reader.page(ALWAYS, most=10)
    assert [found["id"] for found in rows] == ["b", "a"]
    assert (rows[1]["cost"], rows[0]["cost"], cursor) == (30, None, None)
    assert (rows[1]["at"], rows[1]["duration"], rows[1]["stream"]) == (NOON, 1.5, False)


async def test_a_batch_that_is_written_again_changes_nothing(store, reader, engines):
    batch = [make_entry(id=str(number)) for number in range(5)]
    for _ in range(3):
        await store.write(batch)
    (row,) = await reader.sums(EVER, [], {})
    assert (row["requests"], row["input"], await count(engines[0])) == (5, 50, 5)


async def test_what_the_database_refuses_leaves_nothing_behind(store, reader, engines):
    batch = [make_entry(id="a"), make_entry(id="b", tenant=None)]
    with pytest.raises(sa.exc.IntegrityError):
        await store.write(batch)
    assert await count(engines[0]) == 0
    assert await reader.sums(EVER, ["day"], {}) == []


async def test_two_writers_add_up_the_same_day(engines, reader):
    async def write(engine, name):
        store = LedgerStore(engine)
        for number in range(20):
            await store.write([make_entry(id=f"{name}-{number}-{k}", tenant=f"t{k}") for k in range(5)])

    await asyncio.gather(write(engines[0], "x"), write(engines[1], "y"))
    found = await reader.sums(EVER, ["tenant"], {})
    assert [(row["tenant"], row["requests"], row["input"]) for row in found] == [
        (f"t{k}", 40, 400) for k in range(5)
    ]


async def test_old_rows_go_and_their_sums_stay(store, reader, engines):
    await store.write([make_entry(id=str(number), at=NOON - number * 86400) for number in range(10)])
    assert await store.prune(NOON - 5 * 86400 + 1, at_once=3) == 3
    assert await store.prune(NOON - 5 * 86400 + 1, at_once=3) == 2
    assert await store.prune(NOON - 5 * 86400 + 1) == 0
    assert await count(engines[0]) == 5
    (total,) = await reader.sums(EVER, [], {})
    assert total["requests"] == 10


async def test_no_rows_sum_up_to_nothing(reader):
    assert await reader.sums(EVER, ["day"], {}) == []
    (total,) = await reader.sums(EVER, [], {})
    assert set(total.values()) == {0}


async def test_pages_hold_every_row_once_though_more_are_written(store, reader):
    await store.write([make_entry(id=f"{number:02}", at=NOON + number // 3) for number in range(20)])
    seen, cursor = [], None
    while True:
        rows, cursor = await reader.page(ALWAYS, most=7, cursor=cursor)
        seen += [row["id"] for row in rows]
        await store.write([make_entry(id=f"new-{len(seen)}", at=NOON + 1000)])
        if cursor is None:
            break
    assert seen == [f"{number:02}" for number in reversed(range(20))]


async def test_a_cursor_is_one_of_ours(reader):
    for bad in ("x", "W10", "WzEsMl0", "WyJhIiwiYiJd", "====", "\0"):
        with pytest.raises(BadCursor):
            await reader.page(ALWAYS, most=1, cursor=bad)


NAMES = st.sampled_from(["", "a", "b", "a\N{SNOWMAN}"])
TOKENS = st.integers(0, 10**9)
ENTRIES = st.builds(
    make_entry,
    at=st.floats(NOON, NOON + 3 * 86400),
    tenant=NAMES,
    key_id=NAMES,
    model=NAMES,
    upstream=NAMES,
    served_model=NAMES,
    outcome=st.sampled_from(["ok", "cancelled", "RateLimited", "UpstreamTimeout", "InvalidRequest"]),
    kind=st.sampled_from([ANSWER, EXTRA]),
    requests=st.integers(0, 1000),
    input=TOKENS,
    output=TOKENS,
    cost=st.none() | st.integers(0, 10**14),
    cache_hit=st.booleans(),
    estimated=st.booleans(),
)


@given(st.lists(ENTRIES, max_size=40))
def test_the_sums_of_days_are_the_sums_of_rows(entries):
    found = daily_sums(entries)
    groups = [tuple(row[name] for name in GROUPS) for row in found]
    assert len(set(groups)) == len(groups) == len({row["id"] for row in found})
    for name in ("requests", "input", "output", "cached_input", "reasoning", "cache_hits", "estimated"):
        field = {"cache_hits": "cache_hit"}.get(name, name)
        assert sum(row[name] for row in found) == sum(getattr(entry, field) for entry in entries)
    assert sum(row["cost"] for row in found) == sum(entry.cost or 0 for entry in entries)
    assert sum(row["unpriced"] for row in found) == sum(entry.cost is None for entry in entries)
    endings = Counter()
    for entry in entries:
        if entry.kind == ANSWER:
            kind = {"ok": "ok", "cancelled": "cancelled", "UpstreamTimeout": "failed"}
            endings[kind.get(entry.outcome, "refused")] += entry.requests
    assert all(
        sum(row[name] for row in found) == endings[name] for name in ("cancelled", "failed", "refused")
    )


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(batches=st.lists(st.lists(ENTRIES, min_size=1, max_size=8), min_size=1, max_size=5), again=st.data())
async def test_however_batches_come_the_database_holds_their_sums(store, reader, engines, batches, again):
    async with engines[0].begin() as connection:
        await connection.execute(ledger.delete())
        await connection.execute(days.delete())
    batches = [
        [replace(entry, id=f"{place}-{number}") for number, entry in enumerate(batch)]
        for place, batch in enumerate(batches)
    ]
    for batch in batches:
        for _ in range(again.draw(st.integers(1, 2))):
            await store.write(batch)
    entries = [entry for batch in batches for entry in batch]
    expected = {row["id"]: row for row in daily_sums(entries)}
    async with engines[1].connect() as connection:
        found = [dict(row) for row in (await connection.execute(sa.select(days))).mappings()]
    assert {row["id"]: row for row in found} == expected
    (total,) = await reader.sums(EVER, [], {})
    assert total == {name: sum(row[name] for row in expected.values()) for name in SUMS}


def test_a_locked_database_is_told_as_an_operational_error(tmp_path):
    async def check():
        engine = open_database(f"sqlite:///{tmp_path}/t.db")
        async with engine.begin() as connection:
            await connection.run_sync(ledger.create)
            await connection.run_sync(days.create)
        holder = sqlite3.connect(tmp_path / "t.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        store = LedgerStore(engine)
        async with engine.connect() as connection:
            await connection.exec_driver_sql("PRAGMA busy_timeout=1")
            await connection.commit()
        with pytest.raises(sa.exc.OperationalError, match="locked"):
            await store.write([make_entry(id="a")])
        holder.execute("ROLLBACK")
        holder.close()
        await store.write([make_entry(id="a")])
        await engine.dispose()

    asyncio.run(check())

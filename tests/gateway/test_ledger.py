import asyncio
import sqlite3

import pytest
import sqlalchemy as sa

from gateway.clock import SystemClock
from gateway.ledger import Ledger, LedgerOptions, merged
from gateway.stores.database import open_database
from gateway.stores.ledger import LedgerStore, Wasted, ledger
from gateway.stores.migration import migrate
from gateway.stores.usage import Period, UsageReader
from policies.facts import EnergyCounted, LedgerFlushed, UsageCounted
from policies.service import Usage
from tests.kit.ledger import NOON, make_entry
from tests.kit.processes import PATIENCE
from tests.kit.upstream import RecordingMeter

EVER = Period(*(sa.func.date(day) for day in ("2026-01-01", "2027-12-31")))
OPTIONS = LedgerOptions(interval=0.01, batch=10, most=50, last_chance=PATIENCE)


@pytest.fixture
async def engine(tmp_path):
    opened = open_database(f"sqlite:///{tmp_path}/tidegate.db")
    await migrate(opened)
    await opened.dispose()
    sa.event.listen(opened.sync_engine, "connect", impatient)
    yield opened
    await opened.dispose()


def impatient(connection, _):
    """A locked database is told at once."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout=1")
    cursor.close()


class Bench:
    def __init__(self, engine, options=OPTIONS):
        self.engine = engine
        self.meter = RecordingMeter()
        self.ledger = Ledger(
            LedgerStore(engine), options, clock=SystemClock(), wall_time=lambda: NOON, meter=self.meter
        )

    async def rows(self):
        async with self.engine.connect() as connection:
            query = sa.select(ledger).order_by(ledger.c.request)
            return (await connection.execute(query)).mappings().all()

    def told(self, name):
        return sum(getattr(fact, name) for fact in self.meter.of(LedgerFlushed))


@pytest.fixture
def bench(engine):
    return Bench(engine)


@pytest.fixture
def locked(engine):
    """A lock that another process holds on the database until it is closed."""
    holder = sqlite3.connect(engine.url.database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    yield holder
    holder.close()


async def test_what_is_noted_is_written_in_batches(bench):
    for number in range(25):
        bench.ledger.note(make_entry(request=f"{number:02}"))
    assert bench.ledger.waiting == 25
    await bench.ledger.flush()
    rows = await bench.rows()
    assert [row["request"] for row in rows] == [f"{number:02}" for number in range(25)]
    assert len({row["id"] for row in rows}) == 25
    assert [fact.written for fact in bench.meter.of(LedgerFlushed)] == [10, 10, 5]
    assert bench.ledger.waiting == 0


async def test_the_same_id_of_a_client_s_is_two_requests(bench):
    for _ in range(2):
        bench.ledger.note(make_entry(request="chosen-by-a-client"))
    await bench.ledger.flush()
    assert len(await bench.rows()) == 2


async def test_a_locked_database_loses_and_doubles_nothing(bench, locked):
    for number in range(12):
        bench.ledger.note(make_entry(request=f"{number:02}"))
    for _ in range(3):
        await bench.ledger.flush()
    assert bench.ledger.waiting == 12
    locked.execute("ROLLBACK")
    await bench.ledger.flush()
    assert [row["request"] for row in await bench.rows()] == [f"{number:02}" for number in range(12)]
    assert (bench.told("written"), bench.told("dropped"), bench.told("away")) == (12, 0, 3)
    (counted,) = {fact.model: fact for fact in bench.meter.of(UsageCounted)}.values()
    assert sum(fact.usage.input for fact in bench.meter.of(UsageCounted)) == 120
    assert (counted.model, counted.tier) == ("chat", "pro")


async def test_while_it_is_away_the_oldest_are_dropped(bench, locked):
    for number in range(100):
        bench.ledger.note(make_entry(request=f"{number:03}"))
    await bench.ledger.flush()
    assert bench.ledger.waiting == 50
    locked.execute("ROLLBACK")
    await bench.ledger.flush()
    assert [row["request"] for row in await bench.rows()] == [f"{number:03}" for number in range(50, 100)]
    assert bench.told("dropped") == 50


async def test_what_no_database_would_take_is_dropped_and_the_rest_goes_on(bench):
    bench.ledger.note(make_entry(input=2**70))
    await bench.ledger.flush()
    bench.ledger.note(make_entry(request="next"))
    await bench.ledger.flush()
    assert [row["request"] for row in await bench.rows()] == ["next"]
    assert (bench.told("written"), bench.told("dropped")) == (1, 1)


async def test_alike_refusals_are_one_row_with_their_number(bench, engine):
    for number in range(5):
        refused = {"outcome": "RateLimited", "upstream": "", "served_model": "", "input": 0, "output": 0}
        bench.ledger.note(make_entry(request=str(number), status=429, **refused))
        bench.ledger.note(make_entry(request="ok"))
    await bench.ledger.flush()
    rows = await bench.rows()
    assert [(row["request"], row["requests"]) for row in rows] == [("4", 5), *[("ok", 1)] * 5]
    (total,) = await UsageReader(engine).sums(EVER, [], {})
    assert (total["requests"], total["refused"]) == (10, 5)


def test_only_alike_refusals_of_nothing_sent_are_merged():
    refused = [
        make_entry(outcome="RateLimited", upstream="", **facts)
        for facts in ({}, {"key_id": "other"}, {"model": "other"}, {"status": 429})
    ]
    others = [make_entry(outcome="UpstreamRejected"), make_entry(outcome="cancelled", upstream="")]
    assert len(merged([*refused, *others, *others])) == 8
    wasted = [
        make_entry(outcome="Overloaded", upstream="", energy=5, wasted=[Wasted("up", 5)]) for _ in range(2)
    ]
    assert sum(entry.energy for entry in merged(wasted)) == 10


async def test_the_task_writes_within_a_second_and_closing_writes_the_rest(bench):
    running = asyncio.create_task(bench.ledger.run())
    bench.ledger.note(make_entry(request="1"))
    async with asyncio.timeout(PATIENCE):
        while bench.ledger.waiting:
            await asyncio.sleep(0.01)
    running.cancel()
    bench.ledger.note(make_entry(request="2"))
    await bench.ledger.close()
    assert [row["request"] for row in await bench.rows()] == ["1", "2"]


async def test_cancelling_in_the_middle_of_a_batch_neither_loses_nor_doubles_it(bench):
    for number in range(40):
        bench.ledger.note(make_entry(request=f"{number:02}"))
    for _ in range(30):
        writing = asyncio.create_task(bench.ledger.flush())
        await asyncio.sleep(0.0005)
        writing.cancel()
        await asyncio.wait({writing})
    await bench.ledger.close()
    assert [row["request"] for row in await bench.rows()] == [f"{number:02}" for number in range(40)]


async def test_closing_gives_up_on_a_database_that_stays_away(bench, locked, caplog):
    bench.ledger.note(make_entry())
    await bench.ledger.close()
    assert "1 entries of the usage ledger are lost" in caplog.text


async def test_old_rows_are_deleted(bench):
    bench.ledger.keep = 90 * 86400
    bench.ledger.note(make_entry(request="old", at=NOON - 91 * 86400))
    bench.ledger.note(make_entry(request="new", at=NOON - 89 * 86400))
    await bench.ledger.flush()
    pruning = asyncio.create_task(bench.ledger.prune())
    async with asyncio.timeout(PATIENCE):
        while len(await bench.rows()) > 1:
            await asyncio.sleep(0.01)
    pruning.cancel()
    assert [row["request"] for row in await bench.rows()] == ["new"]


async def test_what_was_used_is_counted_once_by_model_and_tier(bench):
    for cost in (30, None):
        bench.ledger.note(make_entry(input=7, output=3, cached_input=2, reasoning=1, cost=cost))
    bench.ledger.note(make_entry(tier="free", route="gpt-*"))
    for _ in range(2):
        await bench.ledger.flush()
    found = bench.meter.of(UsageCounted)
    assert found == [
        UsageCounted("chat", "pro", Usage(14, 6, 4, 2), 30, 1),
        UsageCounted("gpt-*", "free", Usage(10, 5), 30, 0),
    ]


async def test_energy_is_counted_at_the_upstream_where_it_was_taken(bench):
    bench.ledger.note(make_entry(energy=7, flops=1e9, measured=True, upstream="local"))
    bench.ledger.note(make_entry(energy=5))
    bench.ledger.note(make_entry(energy=5 + 3, wasted=(Wasted("slow", 3),)))
    bench.ledger.note(
        make_entry(energy=2, upstream="", outcome="UpstreamTimeout", wasted=(Wasted("slow", 2),))
    )
    bench.ledger.note(make_entry(upstream="", outcome="RateLimited"))
    await bench.ledger.flush()
    assert bench.meter.of(EnergyCounted) == [
        EnergyCounted("local", "chat", measured=True, energy=7, wasted=0, flops=1e9),
        EnergyCounted("up", "chat", measured=False, energy=10, wasted=0, flops=0.0),
        EnergyCounted("slow", "chat", measured=False, energy=5, wasted=5, flops=0.0),
    ]
    (total,) = await UsageReader(bench.engine).sums(EVER, [], {})
    sums = (total["energy"], total["energy_measured"], total["energy_wasted"], total["flops"])
    assert sums == (22, 7, 5, 1e9)

"""What the usage ledger costs: noting a request, writing it, its place on disk, and reading a month.

    python benchmarks/ledger.py [--rows 200000]

Noting is what a request itself pays. Writing happens beside the requests, in batches, to SQLite.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from gateway.bookkeeping import Bookkeeping, Ended
from gateway.clock import SystemClock, wall_time
from gateway.ledger import Ledger, LedgerOptions
from gateway.metrics import Metrics
from gateway.prices import Tariffs
from gateway.settings import Provider
from gateway.stores.database import open_database
from gateway.stores.keys import Key
from gateway.stores.ledger import LedgerStore, day_of
from gateway.stores.migration import migrate
from gateway.stores.usage import Period, Selection, UsageReader
from policies.service import Attempt, Call, Operation, Reply, Usage

KEYS = 200
DAYS = 30
_DAY = 86400


def ended(number: int) -> Ended:
    """An answered call of one of many keys."""
    name = f"tenant-{number % KEYS}"
    key = Key(id=f"key_{number % KEYS}", name=name, digest="", tenant=name, tier="pro")
    call = Call(f"req_{number}", Operation.CHAT, "chat", {}, tenant=name, tier="pro", route="chat")
    call.attempts.append(Attempt("mock", "gpt-4o"))
    reply = Reply("mock", "gpt-4o", usage=Usage(900, 200, 300), complete=True)
    return Ended(call.id, key, call.operation, 200, "ok", 1.2, 0.3, call, reply, None, 800)


async def main(rows: int) -> None:
    """Measure with so many rows."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ledger.db"
        engine = open_database(f"sqlite:///{file}")
        await migrate(engine)
        clock = SystemClock()
        began = wall_time() - DAYS * _DAY
        at = began
        options = LedgerOptions(most=rows + 1)
        ledger = Ledger(LedgerStore(engine), options, clock=clock, wall_time=wall_time, meter=Metrics())
        tariffs = Tariffs({"mock": Provider(preset="openai", api_key="unused")})
        books = Bookkeeping(
            ledger, tariffs, estimate=lambda _: Usage(), bills_cancelled=bool, wall_time=lambda: at
        )
        requests = [ended(number) for number in range(rows)]
        started = time.process_time()
        for request in requests:
            at += DAYS * _DAY / rows
            books.enter(request)
        noting = time.process_time() - started
        cpu, wall = time.process_time(), clock.now()
        await ledger.flush()
        cpu, wall = time.process_time() - cpu, clock.now() - wall
        reader = UsageReader(engine)
        times = {}
        period = Period(day_of(began), day_of(wall_time()))
        for by in ((), ("day",), ("model", "day"), ("tenant", "day")):
            read = clock.now()
            await reader.sums(period, by, {})
            times[", ".join(by) or "totals"] = clock.now() - read
        read = clock.now()
        await reader.page(Selection(0, 1e11, {"tenant": "tenant-7"}), most=100)
        page = clock.now() - read
        await engine.dispose()
        print(f"noting {noting / rows * 1e6:.1f} us a request")
        print(f"writing {cpu / rows * 1e6:.1f} us of CPU a row, {rows / wall:,.0f} rows/s")
        print(f"on disk {file.stat().st_size / rows:.0f} bytes a row, with {KEYS * DAYS} rows of daily sums")
        told = ", ".join(f"by {by} {seconds * 1000:.0f} ms" for by, seconds in times.items())
        print(f"reading {DAYS} days of {rows:,} rows: {told}; a tenant's last 100 rows {page * 1000:.0f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    asyncio.run(main(parser.parse_args().rows))

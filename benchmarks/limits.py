"""What limits cost a call: CPU time of the whole stack with a tier's limits around it, and without.

    python benchmarks/limits.py [--profile memory|redis]

The tier has what tiers usually have: requests a minute and a day, tokens a minute, spend a month. They
are counted in memory, and on a Valkey of its own with leases. The network to upstreams is left out, as
in layers.py; the least of several repetitions counts.
"""

import argparse
import asyncio
import cProfile
import gc
import pstats
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop
from layers import CannedTransport
from mock_upstream import MODEL

from gateway.claims import Claims
from gateway.clock import SystemClock, system_random, wall_time
from gateway.counts import Counts, Place
from gateway.estimates import TokenEstimates
from gateway.metrics import Metrics
from gateway.parts import Parts
from gateway.prices import Tariffs
from gateway.providers.accounts import accounts_of
from gateway.queues import Queues
from gateway.roads import Roads
from gateway.rundir import RunDir
from gateway.settings import Limits, Model, Provider, Target, Tier
from gateway.settings.prices import Price
from gateway.stack import Stacks
from gateway.stores.database import open_database
from gateway.stores.keys import Key
from gateway.stores.migration import migrate
from gateway.stores.quotas import QuotaStore
from gateway.tiers import Tiers
from gateway.upstreams import Upstreams
from gateway.valkey import valkey_argv
from policies.limits import RateLimit
from policies.service import Call, Operation, Service

REPETITIONS = 40
CALLS = {False: 1000, True: 100}

TIER = Tier(
    limits=Limits.model_validate(
        {
            "requests": ["60000000/minute", "9000000000/day"],
            "tokens": "90000000000/minute",
            "spend": "900000000/month",
        }
    )
)
KEY = Key(id="key_1", name="bench", digest="", tenant="bench", tier="pro")


class Bench:
    """One stack, with limits that ``counts`` keeps or without."""

    def __init__(self, parts: Parts, counts: Counts | None) -> None:
        prices = {MODEL: Price(input=1, output=2)}
        provider = Provider(preset="openai", base_url="http://upstream.test/v1", prices=prices)
        providers = {"mock": provider}
        models = {MODEL: Model(route=((Target("mock", MODEL),),))}
        tiers, estimates = Tiers(), TokenEstimates()
        tiers.declare({"pro": TIER}, {})
        claims = Claims(tiers, estimates, wall_time)
        claims.declare(models, Tariffs(providers))
        self.allotment = None if counts is None else claims.allotment_of(KEY)

        def limit(service: Service) -> Service:
            assert counts is not None
            return RateLimit(
                service, resolve=claims, store=counts.store, slots=counts.slots, meter=parts.meter
            )

        roads = Roads(providers, accounts_of(providers, {}), Upstreams(parts), Queues(parts))
        stacks = Stacks(roads, parts, estimates, limit=None if counts is None else limit)
        entry = stacks.catalogue(models).find(MODEL)
        if entry is None:
            raise LookupError(MODEL)
        self.service = entry.service

    async def run(self, *, stream: bool, calls: int) -> None:
        """Make ``calls`` calls one after another."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
        for _ in range(calls):
            call = Call("req", Operation.CHAT, MODEL, body, stream=stream, route=MODEL)
            call.arrived, call.tenant, call.tier = SystemClock().now(), KEY.tenant, KEY.tier
            call.allotment = self.allotment
            async with self.service(call) as reply:
                async for _ in reply.events:
                    pass


@asynccontextmanager
async def benches(parts: Parts) -> AsyncIterator[dict[str, Bench]]:
    """The stack without limits, with limits in memory, and with limits on a Valkey."""
    with tempfile.TemporaryDirectory() as path:
        run_dir = RunDir(Path(path))
        database = open_database(f"sqlite:///{path}/bench.db")
        await migrate(database)
        quotas = QuotaStore(database, wall_time)
        valkey = await asyncio.create_subprocess_exec(*valkey_argv(run_dir))
        while not run_dir.valkey_socket.exists():
            await parts.clock.sleep(0.01)
        memory = await Counts.open(Place(), parts, quotas)
        redis = await Counts.open(Place(f"unix://{run_dir.valkey_socket}", workers=2), parts, quotas)
        # Quotas aren't saved meanwhile: calls that never wait would leave the loop no time for it.
        try:
            yield {"none": Bench(parts, None), "memory": Bench(parts, memory), "redis": Bench(parts, redis)}
        finally:
            for counts in (memory, redis):
                await counts.aclose()
            valkey.terminate()
            await valkey.wait()
            await database.dispose()


async def measure(found: dict[str, Bench], *, stream: bool) -> dict[str, float]:
    """The least CPU microseconds a call, by bench."""
    calls = CALLS[stream]
    least = dict.fromkeys(found, float("inf"))
    for _ in range(REPETITIONS):
        for name, bench in found.items():
            await bench.run(stream=stream, calls=calls // 20)
            began = time.process_time()
            await bench.run(stream=stream, calls=calls)
            least[name] = min(least[name], (time.process_time() - began) / calls * 1e6)
    return least


async def main(profiled: str | None) -> None:
    """Measure both kinds of calls, or profile whole bodies."""
    sys.set_asyncgen_hooks(firstiter=None)  # as a worker does
    parts = Parts(SystemClock(), wall_time, system_random(), Metrics(), CannedTransport())
    async with benches(parts) as found:
        if profiled is not None:
            profile = cProfile.Profile()
            profile.enable()
            await found[profiled].run(stream=False, calls=CALLS[False])
            profile.disable()
            pstats.Stats(profile).sort_stats("tottime").print_stats(40)
            return
        for kind, stream in (("unary", False), ("64-chunk stream", True)):
            least = await measure(found, stream=stream)
            none = least.pop("none")
            shown = ", ".join(f"{name} +{micros - none:.1f}" for name, micros in least.items())
            print(f"{kind}: {none:.1f} us a call without limits; {shown}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", choices=["memory", "redis"])
    gc.freeze()
    gc.set_threshold(20_000)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(parser.parse_args().profile))

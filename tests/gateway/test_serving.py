"""What a worker serves with, over a real database: what it knows from the start, and what a reload leaves."""

from dataclasses import replace

import pytest
import yaml

from gateway.clock import SystemClock, system_random, wall_time
from gateway.counts import Counts, Place
from gateway.parts import Parts
from gateway.providers.transport import EnvironmentTransport
from gateway.serving import Configured, Serving
from gateway.settings import load
from gateway.stores.database import open_database
from gateway.stores.migration import migrate
from gateway.stores.orders import Action, OrderBook
from gateway.stores.quotas import QuotaStore
from gateway.stores.stores import Stores
from tests.kit import processes
from tests.kit.upstream import RecordingMeter

NOWHERE = "http://127.0.0.1:9"


class Interrupted(OrderBook):
    """Somebody gives an order while another reads those that hold."""

    async def standing(self):
        found = await super().standing()
        await self.give("up", Action.DRAIN)
        return found


class Bench:
    """A worker's parts; ``write`` replaces its configuration's file."""

    def __init__(self, folder):
        self.folder = folder
        self.file = folder / "tidegate.yaml"
        self.engine = open_database(f"sqlite:///{folder}/keys.db")
        self.stores = Stores.over(self.engine, wall_time)
        self.write()

    def write(self, **sections):
        config = processes.settings(NOWHERE, self.folder / "keys.db", **sections)
        self.file.write_text(yaml.safe_dump(config), encoding="utf-8")

    async def serving(self):
        await migrate(self.engine)
        parts = Parts(SystemClock(), wall_time, system_random(), RecordingMeter(), EnvironmentTransport())
        counts = await Counts.open(Place(), parts, QuotaStore(self.engine, wall_time))
        configured = Configured(lambda: load(self.file), dict, lambda: None)
        return Serving(configured, load(self.file), self.stores, parts, counts=counts, access_log=None)

    async def close(self, serving):
        await serving.aclose()
        await serving.caching.aclose()
        await self.engine.dispose()


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


async def test_an_order_that_comes_while_a_worker_starts_is_obeyed(bench):
    bench.stores = replace(bench.stores, orders=Interrupted(bench.engine, wall_time))
    serving = await bench.serving()
    await serving.start()
    assert [report.state for report in serving.upstreams.reports()] == ["draining"]
    await bench.close(serving)


def near(provider):
    """A semantic cache whose vectors come from this provider."""
    other = {"preset": "vllm", "base_url": f"{NOWHERE}/v1", "api_key": "sk-none"}
    return {
        "providers": {provider: other},
        "models": {"near": {"route": ["up/fake/ok"], "cache": {"semantic": {"delta": "90%"}}}},
        "cache": {"path": "unused.db", "disk": "off", "embeddings": f"{provider}/any"},
    }


async def test_a_reload_may_take_away_the_provider_that_makes_the_vectors_until_the_restart(bench):
    bench.write(**near("one"))
    serving = await bench.serving()
    bench.write(**near("another"))
    serving.reload()
    assert set(serving.settings.providers) == {"up", "another"}
    assert serving.catalogue.find("near") is not None
    await bench.close(serving)

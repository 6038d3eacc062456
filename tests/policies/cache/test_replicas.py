import asyncio

import pytest

from policies.cache.memory import MemoryCache, MemoryLeases
from policies.cache.replicas import ReplicaOptions, Replicas
from policies.errors import UpstreamUnavailable
from policies.facts import CallCoalesced
from tests.kit.answering import AnsweringUpstream
from tests.kit.caching import Scene, ask, now
from tests.kit.virtual_time import LoopClock, run_virtual


class Fleet:
    """Replicas with a store and leases in common."""

    def __init__(self, upstream, count, patience=None):
        self.taken = {}
        store = MemoryCache(now)
        self.scenes = [Scene(upstream, store=store) for _ in range(count)]
        for number, scene in enumerate(self.scenes):
            coalesce = scene.coalesce
            coalesce._inner = Replicas(
                coalesce._inner,
                scene.options,
                patience or ReplicaOptions(),
                store=store,
                leases=MemoryLeases(self.taken, f"replica-{number}", now),
                clock=LoopClock(),
                wall_time=now,
                spawn=scene.spawn,
                meter=scene.meter,
            )

    async def read(self, calls):
        reads = [self.scenes[at % len(self.scenes)].read(call) for at, call in enumerate(calls)]
        return await asyncio.gather(*reads, return_exceptions=True)


@pytest.mark.parametrize("stream", [False, True])
def test_a_hundred_at_four_replicas_are_one_call_upstream(stream):
    async def story():
        upstream = AnsweringUpstream(pause=0.5)
        fleet = Fleet(upstream, 4)
        answers = await fleet.read([ask(stream=stream) for _ in range(100)])
        assert [state for state, _ in answers].count("miss") == 1
        assert all(answer == answers[0][1] for _, answer in answers)
        assert upstream.opened == 1
        among = [fact.among for scene in fleet.scenes for fact in scene.meter.of(CallCoalesced)]
        assert (among.count("process"), among.count("replicas")) == (96, 3)
        await asyncio.sleep(1)
        assert fleet.taken == {}

    run_virtual(story())


def test_a_stream_waits_only_briefly_for_another_replica():
    async def story():
        upstream = AnsweringUpstream(["one two"], pause=30)
        fleet = Fleet(upstream, 2, ReplicaOptions(stream=2))
        calls = [ask(stream=True), ask(stream=True)]
        await fleet.read(calls)
        assert upstream.opened == 2
        assert sorted(call.coalesced for call in calls) == [0, pytest.approx(2, abs=0.2)]
        assert now() == pytest.approx(62, abs=0.5)

    run_virtual(story())


def test_a_replica_that_fails_leaves_the_asking_to_the_next():
    async def story():
        upstream = AnsweringUpstream([UpstreamUnavailable("reset"), "well"], pause=1)
        fleet = Fleet(upstream, 2)
        first, second = await fleet.read([ask(stream=True), ask(stream=True)])
        assert isinstance(first, UpstreamUnavailable)
        assert second == ("miss", "well")

    run_virtual(story())


def test_the_lease_of_a_dead_replica_expires():
    async def story():
        upstream = AnsweringUpstream()
        fleet = Fleet(upstream, 1)
        scene, call = fleet.scenes[0], ask()
        await scene.read(call)
        scene.store._kept.clear()
        fleet.taken[call.fingerprint] = "dead", now() + 10
        assert (await scene.read(ask()))[0] == "miss"
        assert 10 <= now() <= 10.3

    run_virtual(story())


def test_who_is_cancelled_while_it_asks_gives_its_lease_back():
    async def story():
        fleet = Fleet(AnsweringUpstream(pause=60), 1)
        task = asyncio.create_task(fleet.scenes[0].read(ask()))
        await asyncio.sleep(1)
        assert len(fleet.taken) == 1
        task.cancel()
        await asyncio.sleep(1)
        assert fleet.taken == {}

    run_virtual(story())


class SlowLeases(MemoryLeases):
    """Gives a lease at once, and tells so late."""

    async def acquire(self, key):
        given = await super().acquire(key)
        await asyncio.sleep(1)
        return given


def test_who_is_cancelled_before_it_knows_gives_its_lease_back():
    async def story():
        fleet = Fleet(AnsweringUpstream(), 1)
        fleet.scenes[0].coalesce._inner._leases = SlowLeases(fleet.taken, "slow", now)
        task = asyncio.create_task(fleet.scenes[0].read(ask()))
        await asyncio.sleep(0.5)
        assert len(fleet.taken) == 1
        task.cancel()
        await asyncio.sleep(0.1)
        assert fleet.taken == {}

    run_virtual(story())


def test_no_cache_waits_for_nobody():
    async def story():
        upstream = AnsweringUpstream(pause=5)
        fleet = Fleet(upstream, 2)
        await fleet.read([ask("no-cache"), ask("no-cache")])
        assert (upstream.opened, now()) == (2, 10)

    run_virtual(story())


def test_patience_that_makes_no_sense():
    with pytest.raises(ValueError, match="wait"):
        ReplicaOptions(whole=-1)

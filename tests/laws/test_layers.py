"""The laws of a layer (policies/service.py), for every layer of the stack and for all of them together.

A layer is transparent on success; it lets go of what it holds on success, error, cancellation and early
close; it never opens its inner service again after the yield; and it passes cancellation on.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from random import Random

import pytest

from policies.adaptive import AdaptiveConcurrency
from policies.admission import Admission
from policies.balance import Balance, BalanceOptions, Group
from policies.breaker import Breaker
from policies.budget import BudgetOptions, RetryBudget
from policies.cache.coalesce import Coalesce
from policies.cache.exact import Cache, Shelf
from policies.cache.fill import Fill
from policies.cache.memory import MemoryCache, MemoryLeases
from policies.cache.replicas import ReplicaOptions, Replicas
from policies.cache.reuse import CacheOptions
from policies.concurrency import AdaptiveOptions, ConcurrencyLimit
from policies.deadline import Deadline, DeadlineOptions
from policies.errors import InvalidRequest, StreamInterrupted, UpstreamUnavailable
from policies.failover import Failover, Step
from policies.fairqueue import AdmissionOptions
from policies.health import Health, HealthOptions
from policies.hedge import Hedge, HedgeOptions
from policies.limits import Allotment, Claim, HeldSlots, RateLimit
from policies.member import Member
from policies.memory import MemoryStore
from policies.observe import ObserveAttempts, ObserveCalls
from policies.permits import Permits
from policies.ratelimit import Bucket, Dimension, Limit, Window
from policies.rescue import Rescue, RescueOptions
from policies.retry import Retry, RetryOptions
from policies.seating import Seating
from policies.seats import RouteSeats
from policies.service import Call, Reply, Service, Usage
from policies.throttle import AcceptRatio, ClientThrottle, ThrottleOptions
from policies.timers import SilenceTimers, TimerOptions
from tests.kit.estimates import FixedEstimates
from tests.kit.upstream import RecordingMeter, ScriptedUpstream, Wait, make_call
from tests.kit.virtual_time import LoopClock, run_virtual


def reusable(service: Service) -> Service:
    """Mark calls as the cache does those that one answer will do for."""

    def marked(call: Call) -> AbstractAsyncContextManager[Reply]:
        call.fingerprint = call.fingerprint or "the same"
        return service(call)

    return marked


@dataclass
class Bench:
    """What layers are built with, and what tells how much they still hold."""

    clock: LoopClock = field(default_factory=LoopClock)
    meter: RecordingMeter = field(default_factory=RecordingMeter)
    rng: Random = field(default_factory=lambda: Random(7))
    held: list[Callable[[], int]] = field(default_factory=list)

    def observe_calls(self, inner: Service) -> Service:
        return ObserveCalls(inner, clock=self.clock, meter=self.meter)

    def observe_attempts(self, inner: Service) -> Service:
        return ObserveAttempts(inner, upstream="up", model="m", clock=self.clock, meter=self.meter)

    def deadline(self, inner: Service) -> Service:
        return Deadline(inner, options=DeadlineOptions(600), clock=self.clock)

    def admission(self, inner: Service) -> Service:
        permits = Permits(ConcurrencyLimit(AdaptiveOptions(), random=self.rng), clock=self.clock)
        seats = RouteSeats([(permits, None)])
        seating = Seating(AdmissionOptions(), seats=seats, clock=self.clock, rng=self.rng, meter=self.meter)
        self.held += [lambda: seating.queue.waiting, lambda: seating.queue.tiers["default"].running]
        return Admission(inner, seating, estimates=FixedEstimates())

    def rate_limit(self, inner: Service) -> Service:
        store = MemoryStore(self.clock.now)
        slots = HeldSlots(store, owner="w", clock=self.clock)
        running = Bucket("running", Limit(Dimension.CONCURRENCY, 100))
        self.held += [lambda: len(slots), lambda: int(store.amount(running, self.clock.now()))]
        tokens = Bucket("tokens", Limit(Dimension.TOKENS, 1000, Window.MINUTE))
        claim = Claim(Allotment([running, tokens]), Usage(input=1, output=1))
        return RateLimit(inner, resolve=lambda _: claim, store=store, slots=slots, meter=self.meter)

    def cache(self, inner: Service) -> Service:
        return Cache(
            inner,
            CacheOptions(always=True),
            shelf=Shelf(MemoryCache(self.clock.now)),
            clock=self.clock,
            wall_time=self.clock.now,
            spawn=asyncio.ensure_future,
            meter=self.meter,
        )

    def coalesce(self, inner: Service) -> Service:
        coalesce = Coalesce(inner, clock=self.clock, meter=self.meter)
        self.held.append(lambda: len(coalesce))
        return reusable(coalesce)

    def replicas(self, inner: Service) -> Service:
        taken: dict[str, tuple[str, float]] = {}
        self.held.append(lambda: len(taken))
        return reusable(
            Replicas(
                inner,
                CacheOptions(),
                ReplicaOptions(),
                store=MemoryCache(self.clock.now),
                leases=MemoryLeases(taken, "w", self.clock.now),
                clock=self.clock,
                wall_time=self.clock.now,
                spawn=asyncio.ensure_future,
                meter=self.meter,
            )
        )

    def fill(self, inner: Service) -> Service:
        store = MemoryCache(self.clock.now)
        return reusable(
            Fill(
                inner,
                CacheOptions(),
                store=store,
                trusted=lambda _call, _reply: True,
                wall_time=self.clock.now,
            )
        )

    def rescue(self, inner: Service) -> Service:
        return Rescue(inner, RescueOptions("error"), continuing=None, meter=self.meter)

    def failover(self, inner: Service) -> Service:
        return Failover([Step("first", inner), Step("second", inner)], meter=self.meter)

    def hedge(self, inner: Service) -> Service:
        return Hedge(
            inner,
            HedgeOptions(after=5, tiers=frozenset({""})),
            budget=RetryBudget(BudgetOptions()),
            worthwhile=lambda _: True,
            clock=self.clock,
            meter=self.meter,
        )

    def retry(self, inner: Service) -> Service:
        return Retry(
            inner,
            RetryOptions(attempts=3),
            budget=RetryBudget(BudgetOptions()),
            another=lambda _: False,
            clock=self.clock,
            rng=self.rng,
            meter=self.meter,
        )

    def balance(self, inner: Service) -> Service:
        member = Member("up", inner, model="m")
        self.held += [lambda: member.inflight, lambda: len(member.opening)]
        group = Group([member], options=BalanceOptions(), rng=self.rng, meter=self.meter)
        return Balance(group, clock=self.clock)

    def breaker(self, inner: Service) -> Service:
        health = Health("up", model="m", options=HealthOptions(), rng=self.rng, meter=self.meter)
        return Breaker(inner, health=health, clock=self.clock)

    def throttle(self, inner: Service) -> Service:
        ratio = AcceptRatio(ThrottleOptions(), random=self.rng)
        return ClientThrottle(inner, upstream="up", ratio=ratio, clock=self.clock, meter=self.meter)

    def adaptive(self, inner: Service) -> Service:
        permits = Permits(ConcurrencyLimit(AdaptiveOptions(), random=self.rng), clock=self.clock)
        self.held += [lambda: permits.limit.inflight, lambda: permits.waiting]
        return AdaptiveConcurrency(
            inner, upstream="up", permits=permits, patience=60, clock=self.clock, meter=self.meter
        )

    def timers(self, inner: Service) -> Service:
        return SilenceTimers(inner, upstream="up", options=TimerOptions(), clock=self.clock, meter=self.meter)

    def all(self, inner: Service) -> Service:
        """Both stacks in their order."""
        for name in reversed(LAYERS):
            inner = getattr(self, name)(inner)
        return inner


LAYERS = [
    "observe_calls",
    "cache",
    "coalesce",
    "replicas",
    "fill",
    "deadline",
    "admission",
    "rescue",
    "failover",
    "hedge",
    "retry",
    "balance",
    "breaker",
    "throttle",
    "adaptive",
    "observe_attempts",
    "timers",
]
BROKEN = StreamInterrupted("cut")


@pytest.fixture(params=[*LAYERS, "all"])
def build(request):
    """Build one layer, or all of them, over an upstream with a script."""

    def built(*steps):
        bench = Bench()
        upstream = ScriptedUpstream([list(steps)])
        return getattr(bench, request.param)(upstream), upstream, bench

    return built


async def read(service, call, seen):
    async with service(call) as reply:
        async for event in reply.events:
            seen.append(event.text)
    return reply


def assert_let_go(upstream, bench):
    assert upstream.active == 0
    assert [held() for held in bench.held] == [0] * len(bench.held)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def settle():
    """Let tasks that were cancelled end."""
    await asyncio.sleep(0.001)


def test_transparent_on_success(build):
    async def law():
        service, upstream, bench = build(Wait(1), "a", Wait(1), "b")
        call, seen = make_call(), []
        reply = await read(service, call, seen)
        assert seen == ["a", "b", ""]
        assert (reply.upstream, reply.complete, reply.usage) == ("up", True, Usage(input=3, output=2))
        assert upstream.calls == [call]
        assert asyncio.get_running_loop().time() == pytest.approx(2)
        await settle()
        assert_let_go(upstream, bench)

    run_virtual(law())


@pytest.mark.parametrize(
    ("steps", "error"),
    [([], InvalidRequest("no")), (["a", Wait(1), "b"], BROKEN), (["a"], RuntimeError("bug"))],
)
def test_lets_go_on_error_and_passes_it_on(build, steps, error):
    async def law():
        service, upstream, bench = build(*steps, error)
        seen = []
        with pytest.raises(type(error)) as caught:
            await read(service, make_call(), seen)
        assert caught.value is error
        assert seen == [step for step in steps if isinstance(step, str)]
        await settle()
        assert_let_go(upstream, bench)

    run_virtual(law())


@pytest.mark.parametrize("after", [0.5, 1.5, 7])
def test_lets_go_when_cancelled_and_passes_that_on(build, after):
    """While it is opened, while it is read, and while a hedge runs beside it."""

    async def law():
        service, upstream, bench = build(Wait(1 if after < 2 else 60), "a", Wait(60), "b")
        task = asyncio.create_task(read(service, make_call(), []))
        await asyncio.sleep(after)
        task.cancel("gone")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        await settle()
        assert_let_go(upstream, bench)

    run_virtual(law())


def test_lets_go_on_early_close(build):
    async def law():
        service, upstream, bench = build("a", Wait(60), "b")
        async with service(make_call()) as reply:
            assert (await anext(aiter(reply.events))).text == "a"
        await settle()
        assert_let_go(upstream, bench)
        async with service(make_call()):
            pass
        await settle()
        assert_let_go(upstream, bench)

    run_virtual(law())


@pytest.mark.parametrize("error", [ValueError("mine"), UpstreamUnavailable("not the upstream's")])
def test_an_error_of_the_consumer_passes_through_as_it_is(build, error):
    async def law():
        service, upstream, bench = build("a", "b")
        with pytest.raises(type(error)) as caught:
            async with service(make_call()):
                raise error
        assert caught.value is error
        assert len(upstream.opened) == 1
        await settle()
        assert_let_go(upstream, bench)

    run_virtual(law())


def test_never_opens_again_after_the_yield(build):
    async def law():
        service, upstream, _ = build("a", BROKEN)
        with pytest.raises(StreamInterrupted):
            await read(service, make_call(), [])
        assert len(upstream.opened) == 1

    run_virtual(law())


def test_calls_do_not_disturb_each_other(build):
    async def law():
        service, upstream, bench = build(Wait(1), "a", Wait(1), "b")
        calls = [make_call(id=f"req_{number}") for number in range(5)]
        tasks = [asyncio.create_task(read(service, call, [])) for call in calls]
        await asyncio.sleep(1.5)
        tasks[2].cancel()
        replies = await asyncio.gather(*tasks, return_exceptions=True)
        assert [getattr(reply, "complete", None) for reply in replies] == [True, True, None, True, True]
        await settle()
        assert_let_go(upstream, bench)

    run_virtual(law())

"""Traffic through the real layers of retry, hedge and failover, against modelled upstreams."""

import asyncio
import math
import random
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from policies.balance import Balance, BalanceOptions, Group
from policies.budget import BudgetOptions, RetryBudget
from policies.errors import GatewayError, UpstreamBusy, UpstreamUnavailable
from policies.failover import Failover, Step
from policies.hedge import Hedge, HedgeOptions
from policies.member import Member
from policies.observe import ObserveAttempts
from policies.retry import Retry, RetryOptions
from policies.service import Event, Reply
from tests.kit.chunked import ChunkedUpstream
from tests.kit.upstream import RecordingMeter, make_call
from tests.kit.virtual_time import LoopClock, run_virtual

UNLIMITED = BudgetOptions(ratio=1, per_second=1e9)
CLOCK = LoopClock()


class NoJitter(random.Random):
    """Draws the ceiling itself: exponential backoff as it is without jitter."""

    def uniform(self, a, b):
        return b


@dataclass
class ModelUpstream:
    """Answers one event after a drawn time, or fails as ``fault`` says; counts what reaches it.

    With ``slots`` it takes so many calls at a time, for ``busy`` seconds each, and rejects the others.
    """

    name: str = "up"
    ttft: Callable[[], float] = lambda: 0.5
    fault: Callable[[float], GatewayError | None] = lambda now: None
    slots: float = math.inf
    sent: list[float] = field(default_factory=list)
    active: int = 0

    @asynccontextmanager
    async def __call__(self, call):
        now = CLOCK.now()
        self.sent.append(now)
        if self.active >= self.slots:
            raise UpstreamBusy("no slot")
        error = self.fault(now)
        if error is not None:
            await asyncio.sleep(0.02)
            raise error
        self.active += 1
        try:
            await asyncio.sleep(self.ttft())
            yield Reply(events=_one(), upstream=self.name, model="m", stream=True)
        finally:
            self.active -= 1


async def _one():
    yield Event(b"{}", text="x")


class StrictBudget(RetryBudget):
    """A budget that doesn't give tokens back, as Finagle's."""

    __slots__ = ()

    def refund(self):
        pass


def retrying(*upstreams, rng, budget, **options):
    """Retry over a balance of equals that knows no health, so that every upstream keeps its share."""
    meter = RecordingMeter()
    members = [
        Member(
            upstream.name,
            ObserveAttempts(upstream, upstream=upstream.name, model="m", clock=CLOCK, meter=meter),
        )
        for upstream in upstreams
    ]
    group = Group(members, options=BalanceOptions("weighted"), rng=rng, meter=meter)
    balance = Balance(group, clock=CLOCK)
    retry = Retry(
        balance,
        RetryOptions(**options),
        budget=budget,
        another=balance.another,
        clock=CLOCK,
        rng=rng,
        meter=meter,
    )
    return retry, balance


async def offer(service, rng, *, rate, seconds, tier=""):
    """Poisson traffic; for each call its arrival, seconds to the first event, and its error or None."""
    results = []

    async def one():
        call = make_call(tier=tier, arrived=CLOCK.now())
        error = None
        try:
            async with service(call):
                first = CLOCK.now() - call.arrived
        except GatewayError as caught:
            error, first = caught, CLOCK.now() - call.arrived
        results.append((call.arrived, first, error))

    async with asyncio.TaskGroup() as group:
        end = CLOCK.now() + seconds
        while (pause := rng.expovariate(rate)) < end - CLOCK.now():
            await asyncio.sleep(pause)
            group.create_task(one())
    return results


def contention(jitter, *, clients=100, slots=5, busy=0.1, seed=1):
    """Clients that all start at once at an upstream with few slots: its calls, and when all were served."""
    rng = random.Random(seed) if jitter else NoJitter(seed)
    upstream = ModelUpstream(ttft=lambda: busy, slots=slots)
    retry, _ = retrying(upstream, rng=rng, budget=RetryBudget(UNLIMITED), attempts=1000)

    async def run():
        async def one():
            async with retry(make_call()):
                return

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(one())
        return CLOCK.now()

    done = run_virtual(run())
    return upstream.sent, done


def outage(options, *, rate=50, calm=10, out=60, after=10):
    """One upstream that rejects everything for a while: attempts and calls by second, and failures later."""
    seed = 1
    rng = random.Random(seed)
    down = (calm, calm + out)
    upstream = ModelUpstream(fault=lambda now: UpstreamBusy("busy") if down[0] <= now < down[1] else None)
    retry, _ = retrying(upstream, rng=rng, budget=RetryBudget(options))
    results = run_virtual(offer(retry, rng, rate=rate, seconds=calm + out + after))
    calls = [arrived for arrived, _, _ in results]
    late = [error for arrived, _, error in results if arrived >= down[1]]
    inside = [sum(down[0] <= at < down[1] for at in times) for times in (upstream.sent, calls)]
    return {
        "amplification": inside[0] / inside[1],
        "failed_afterwards": sum(error is not None for error in late) / len(late),
        "sent": upstream.sent,
        "calls": calls,
    }


def one_of_three_dead(budget, *, rate=50, seconds=60, seed=1):
    """The share of calls answered while one of three equals is broken and nobody ejects it."""
    rng = random.Random(seed)
    dead = ModelUpstream("dead", fault=lambda now: UpstreamUnavailable("reset"))
    retry, _ = retrying(dead, ModelUpstream("b"), ModelUpstream("c"), rng=rng, budget=budget)
    results = run_virtual(offer(retry, rng, rate=rate, seconds=seconds))
    return sum(error is None for _, _, error in results) / len(results)


def slow_tail(hedged, *, rate=20, calls=8000, seed=5, tail=0.03):
    """Times to the first event when some are 15 times as slow, and attempts a call."""
    rng = random.Random(seed)
    tier = "pro" if hedged else "free"

    def ttft():
        return rng.lognormvariate(math.log(0.6), 0.4) * (15 if rng.random() < tail else 1)

    upstreams = [ModelUpstream(name, ttft) for name in "abc"]
    budget = RetryBudget(BudgetOptions())
    retry, balance = retrying(*upstreams, rng=rng, budget=budget)
    hedge = Hedge(
        retry,
        HedgeOptions(tiers=frozenset({"pro"})),
        budget=budget,
        worthwhile=balance.another,
        clock=CLOCK,
        meter=RecordingMeter(),
    )
    results = run_virtual(offer(hedge, rng, rate=rate, seconds=calls / rate, tier=tier))
    attempts = sum(len(upstream.sent) for upstream in upstreams)
    return sorted(first for _, first, _ in results), attempts / len(results)


def quantile(ordered, q):
    return ordered[min(len(ordered) - 1, math.ceil(q * len(ordered)) - 1)]


class Killed(ChunkedUpstream):
    """Streams a text; from ``kill`` on its connections break, those without a first event too."""

    kill: float = math.inf

    @asynccontextmanager
    async def __call__(self, call):
        if CLOCK.now() >= self.kill:
            raise UpstreamUnavailable("connection refused")
        async with super().__call__(call) as reply:
            if CLOCK.now() >= self.kill:
                raise UpstreamUnavailable("connection reset")
            yield reply


@dataclass
class Deaths:
    """What clients got while upstreams died: when who answered, wrong texts, and errors."""

    answered: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in "abc"})
    wrong: int = 0
    errors: list[GatewayError] = field(default_factory=list)


def deaths_along_a_route(*, rate=50, seconds=20, kill=10.0, seed=3):
    """Two equals and a fallback: one equal dies, then the other, always before a first event."""
    rng = random.Random(seed)
    text = [f" token{k}" for k in range(60)]
    a, b, c = (Killed(name, text) for name in "abc")
    a.kill, b.kill = kill, kill + 5
    first, balance = retrying(a, b, rng=rng, budget=RetryBudget(BudgetOptions()))
    last, _ = retrying(c, rng=rng, budget=RetryBudget(BudgetOptions()))
    route = Failover([Step("ab", first, another=balance.another), Step("c", last)], meter=RecordingMeter())
    deaths = Deaths()

    async def one():
        try:
            async with route(make_call()) as reply:
                deaths.answered[reply.upstream].append(CLOCK.now())
                got = "".join([event.text async for event in reply.events])
                deaths.wrong += got != "".join(text)
        except GatewayError as error:
            deaths.errors.append(error)

    async def run():
        async with asyncio.TaskGroup() as group:
            while CLOCK.now() < seconds:
                await asyncio.sleep(rng.expovariate(rate))
                group.create_task(one())

    run_virtual(run())
    return deaths

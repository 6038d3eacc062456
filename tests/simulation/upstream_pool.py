"""A pool of modelled upstreams in virtual time, and clients that re-pick when an attempt fails."""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from policies.balance import Balance, BalanceOptions, Group
from policies.breaker import Breaker
from policies.errors import GatewayError, NoHealthyUpstream, UpstreamError, UpstreamTimeout
from policies.health import Health, HealthOptions
from policies.member import Member
from policies.probe import ProbeOptions, Prober, ProbeSchedule
from policies.service import Attempt, Call, Event, Reply
from tests.kit.upstream import RecordingMeter, make_call
from tests.kit.virtual_time import LoopClock


def now() -> float:
    return asyncio.get_running_loop().time()


class TimedMeter(RecordingMeter):
    """Keeps the facts with the times at which it heard them."""

    def __init__(self) -> None:
        super().__init__()
        self.timeline: list[tuple[float, object]] = []

    def emit(self, fact: object) -> None:
        super().emit(fact)
        self.timeline.append((now(), fact))


@dataclass
class SlottedUpstream:
    """``slots`` streams at once, the others queue. First tokens take about 0.6 s, answers about 5 s.

    ``slow(t)`` multiplies both. ``fault(t)`` is an error for openings at t, "silent" for an upstream
    that takes the call and says nothing, or None.
    """

    name: str
    rng: random.Random
    slots: int = 12
    slow: Callable[[float], float] = lambda t: 1.0
    fault: Callable[[float], UpstreamError | str | None] = lambda t: None
    patience: float = 5.0
    opened: list[float] = field(default_factory=list)
    active: int = 0
    most_active: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._free = asyncio.Semaphore(self.slots)

    @asynccontextmanager
    async def __call__(self, call: Call) -> AsyncIterator[Reply]:
        self.opened.append(now())
        attempt = Attempt(self.name, call.model)
        call.attempts.append(attempt)
        self.active += 1
        self.most_active.append((now(), self.active))
        try:
            if (fault := self.fault(now())) is not None:
                await self._fail(fault)
            async with self._free:
                slow = self.slow(now())
                await asyncio.sleep(self.rng.lognormvariate(math.log(0.6), 0.5) * slow)
                reply = Reply(self.name, call.model, stream=True)
                reply.events = self._events(reply, slow)
                yield reply
        finally:
            self.active -= 1

    async def _fail(self, fault: UpstreamError | str) -> None:
        if isinstance(fault, UpstreamError):
            await asyncio.sleep(0.02)
            raise fault
        await asyncio.sleep(self.patience)
        raise UpstreamTimeout("silent")

    async def _events(self, reply: Reply, slow: float) -> AsyncIterator[Event]:
        await asyncio.sleep(min(800.0, self.rng.lognormvariate(math.log(150), 0.8)) / 40 * slow)
        reply.complete = True
        yield Event(b"")


@dataclass
class Outcome:
    """One client's call: when it came, its first token's time, whether it got one."""

    arrived: float
    first_token: float = math.inf
    attempts: tuple[str, ...] = ()
    error: str = ""


@dataclass
class Pool:
    """Upstreams behind breakers and one balance, as the gateway stacks them, with ``rng`` for all."""

    upstreams: list[SlottedUpstream]
    strategy: str = "latency"
    guarded: bool = True
    probes: str = "off"
    seed: int = 1
    attempts: int = 3

    def __post_init__(self) -> None:
        clock, rng, self.meter = LoopClock(), random.Random(self.seed), TimedMeter()
        self.health = {}
        members = []
        for upstream in self.upstreams:
            health = Health(upstream.name, options=HealthOptions(), rng=rng, meter=self.meter)
            self.health[upstream.name] = health
            service = Breaker(upstream, health=health, clock=clock) if self.guarded else upstream
            members.append(Member(upstream.name, service, health=health if self.guarded else None))
        options = BalanceOptions(strategy=self.strategy)
        self.group = Group(members, options=options, rng=rng, meter=self.meter)
        self.balance = Balance(self.group, clock=clock)
        self.probers = [
            Prober(
                self.health[upstream.name],
                models_of(upstream),
                schedule=ProbeSchedule(ProbeOptions(kind=self.probes), rng),
                clock=clock,
                meter=self.meter,
            )
            for upstream in self.upstreams
        ]
        self.rng = rng

    async def offer(self, rate: float, until: float) -> list[Outcome]:
        """Poisson arrivals until ``until``, each read to its end; returns when all are over."""
        outcomes: list[Outcome] = []
        probing = [asyncio.create_task(prober.run()) for prober in self.probers]
        async with asyncio.TaskGroup() as clients:
            while True:
                await asyncio.sleep(self.rng.expovariate(rate))
                if now() > until:
                    break
                outcomes.append(Outcome(now()))
                clients.create_task(self._client(outcomes[-1]))
        for task in probing:
            task.cancel()
        await asyncio.gather(*probing, return_exceptions=True)
        return outcomes

    async def _client(self, outcome: Outcome) -> None:
        call = make_call()
        for _ in range(self.attempts):
            try:
                async with self.balance(call) as reply:
                    outcome.first_token = now() - outcome.arrived
                    async for _event in reply.events:
                        pass
            except NoHealthyUpstream as error:
                outcome.error = str(error)
                break
            except GatewayError as error:
                outcome.error = str(error)
            else:
                outcome.error = ""
                break
        outcome.attempts = tuple(attempt.upstream for attempt in call.attempts)


def models_of(upstream: SlottedUpstream):
    """The free probe of an upstream."""

    async def check() -> None:
        await asyncio.sleep(0.02)
        fault = upstream.fault(now())
        if isinstance(fault, UpstreamError):
            raise fault
        if fault:
            await asyncio.sleep(60)

    return check


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]

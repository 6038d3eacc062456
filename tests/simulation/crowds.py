"""Crowds of clients at a route whose upstream takes a known number of calls at once.

Prompts are of 50 to 1,000 tokens and answers of 20 to 400, at 40 tokens a second after 0.5 s: 5.75 s a
call on average. The estimate knows the prompt and takes every answer for the mean one.
"""

import asyncio
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

from policies.adaptive import AdaptiveConcurrency
from policies.admission import Admission
from policies.concurrency import AdaptiveOptions, ConcurrencyLimit
from policies.errors import GatewayError, Overloaded
from policies.fairqueue import AdmissionOptions
from policies.permits import Permits
from policies.seating import Seating
from policies.seats import RouteSeats
from policies.service import Call, Event, Operation, Reply, Usage
from tests.kit.estimates import FixedEstimates
from tests.kit.upstream import RecordingMeter
from tests.kit.virtual_time import LoopClock

FIRST_TOKEN = 0.5
MEAN_OUTPUT = 210
CALLS_PER_SEAT = 1 / 5.75


@dataclass
class Visit:
    """A call and what became of it: "ok", the error's name, or "left"."""

    call: Call
    started: float
    outcome: str = ""
    ended: float = 0.0
    why: str = ""
    waited: float = 0.0
    served: float = 0.0
    retry_after: float = 0.0


@dataclass
class Place:
    """A route: admission, where ``options`` are given, over one upstream with ``seats``.

    Calls take ``slowness`` times as long as elsewhere.
    """

    seats: int
    options: AdmissionOptions | None = None
    weights: dict[str, float] = field(default_factory=dict)
    slowness: float = 1.0
    rng: Random = field(default_factory=lambda: Random(5))
    clock: LoopClock = field(default_factory=LoopClock)
    meter: RecordingMeter = field(default_factory=RecordingMeter)
    active: int = 0
    most: int = 0

    def __post_init__(self):
        options = AdaptiveOptions(initial=self.seats, max_concurrency=self.seats)
        self.permits = Permits(ConcurrencyLimit(options, random=self.rng), clock=self.clock)
        self.service = AdaptiveConcurrency(
            self.upstream,
            upstream="up",
            permits=self.permits,
            patience=60,
            clock=self.clock,
            meter=self.meter,
        )
        self.seating = None
        if self.options is not None:
            self.seating = Seating(
                self.options,
                seats=RouteSeats([(self.permits, None)]),
                clock=self.clock,
                rng=self.rng,
                meter=self.meter,
            )
            self.service = Admission(
                self.service,
                self.seating,
                estimates=FixedEstimates(lambda call: Usage(input=call.body["prompt"], output=MEAN_OUTPUT)),
                weight=lambda call: self.weights.get(call.tenant, 1.0),
            )

    @asynccontextmanager
    async def upstream(self, call):
        usage = Usage(input=call.body["prompt"], output=call.body["answer"])
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            await asyncio.sleep(FIRST_TOKEN * self.slowness)
            yield Reply("up", "m", events=self._events(usage), stream=True, usage=usage)
        finally:
            self.active -= 1

    async def _events(self, usage):
        await asyncio.sleep(usage.output / 40 * self.slowness)
        yield Event(b"")

    async def visit(self, call):
        """Make a call and read it to its end."""
        now = self.clock.now
        visit = Visit(call, now())
        try:
            async with self.service(call) as reply:
                visit.waited = now() - visit.started - FIRST_TOKEN * self.slowness
                async for _ in reply.events:
                    pass
                visit.outcome = "ok"
                visit.served = reply.usage.input + 2.0 * reply.usage.output
        except GatewayError as error:
            visit.why = str(error)
            visit.outcome = type(error).__name__
            visit.waited = now() - visit.started
            visit.retry_after = error.retry_after or 0.0
        visit.ended = now()
        return visit


def make_call(random, number, tenant="", tier="", deadline=float("inf")):
    body = {"n": number, "prompt": random.randint(50, 1000), "answer": random.randint(20, 400)}
    return Call(
        f"req_{number}", Operation.CHAT, "m", body, stream=True, tenant=tenant, tier=tier, deadline=deadline
    )


async def crowd(  # noqa: PLR0913 - a scene
    place, random, rate, seconds, *, tenants=("t",), tier="", returns=0, start=0.0, visits
):
    """Poisson arrivals for ``seconds``; whoever is sent away comes back when told, ``returns`` times."""

    async def client(number):
        call = make_call(random, number, random.choice(tenants), tier)
        for _ in range(returns + 1):
            visit = await place.visit(call)
            visits.append(visit)
            if visit.outcome != Overloaded.__name__:
                return
            await asyncio.sleep(visit.retry_after + random.uniform(0.01, 0.2))  # the way there and back

    await asyncio.sleep(start)
    async with asyncio.TaskGroup() as group:
        end = place.clock.now() + seconds
        while True:
            await asyncio.sleep(random.expovariate(rate))
            if place.clock.now() >= end:
                return
            group.create_task(client(random.getrandbits(60)))


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def tell(line):
    sys.stdout.write(line + "\n")

"""A modelled LLM upstream with a hidden, moving concurrency limit, and clients that overload it.

Times to the first token are log-normal (median 0.6 s), lengths log-normal with a heavy tail (median
180 tokens, at most 2,000) at 40 tokens a second: a mean of 8 s a call.
"""

import asyncio
import math
import sys
from bisect import bisect_right
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

from policies.adaptive import AdaptiveConcurrency
from policies.errors import UpstreamBusy, UpstreamThrottled
from policies.permits import Permits
from policies.service import Event, Reply, Usage
from tests.kit.upstream import RecordingMeter, make_call
from tests.kit.virtual_time import LoopClock, run_virtual

MEAN_DURATION = 8.0
REFUSAL_TAKES = 0.1


class Capacity:
    """Steps of a hidden limit: ``Capacity((0, 40), (300, 12), (600, 40))``."""

    def __init__(self, *steps):
        self.steps = steps
        self.times = [time for time, _ in steps]

    def at(self, time):
        return self.steps[bisect_right(self.times, time) - 1][1]

    def between(self, start, end):
        """The stretches of [start, end) with one limit: (seconds, limit)."""
        cuts = [start, *(time for time in self.times if start < time < end), end]
        return [(b - a, self.at(a)) for a, b in pairwise(cuts)]


@dataclass
class LimitedUpstream:
    """Refuses with 503 beyond its capacity, or queues when ``queues``."""

    capacity: Capacity
    random: Random
    queues: bool = False
    retry_after: float | None = None
    active: int = 0
    attempts: int = 0
    refused: int = 0
    completed: int = 0
    used: float = 0.0
    offered: float = 0.0
    ttfts: list = field(default_factory=list)
    trace: list = field(default_factory=list)
    _since: float = 0.0
    _queue: deque = field(default_factory=deque)

    def account(self):
        now = asyncio.get_running_loop().time()
        for seconds, limit in self.capacity.between(self._since, now):
            self.used += min(self.active, limit) * seconds
            self.offered += limit * seconds
        self._since = now
        return now

    @asynccontextmanager
    async def __call__(self, call):
        now = self.account()
        self.attempts += 1
        if self.active >= self.capacity.at(now):
            if not self.queues:
                self.refused += 1
                self.trace.append((now, "refused"))
                await asyncio.sleep(REFUSAL_TAKES)
                raise UpstreamBusy("busy", status=503, retry_after=self.retry_after)
            turn = asyncio.get_running_loop().create_future()
            self._queue.append(turn)
            try:
                await turn  # whoever wakes us counts us
            except asyncio.CancelledError:
                self._queue.remove(turn)
                raise
        else:
            self.active += 1
        try:
            await asyncio.sleep(self.random.lognormvariate(math.log(0.6), 0.5))
            self.ttfts.append((now, asyncio.get_running_loop().time() - now))
            length = min(2000, self.random.lognormvariate(math.log(180), 1.0))
            reply = Reply(events=None, upstream="up", model="m", stream=True, usage=Usage(200, int(length)))
            reply.events = self._rest(length / 40)
            yield reply
            self.completed += 1
        finally:
            now = self.account()
            self.active -= 1
            while self._queue and self.active < self.capacity.at(now):
                self.active += 1
                self._queue.popleft().set_result(None)

    async def _rest(self, seconds):
        await asyncio.sleep(seconds)
        yield Event(data=b"stop", content=False, finish_reason="stop")

    @property
    def utilisation(self):
        return self.used / self.offered

    @property
    def refused_share(self):
        return self.refused / max(1, self.attempts)

    def ttft(self, quantile, start=0.0):
        times = sorted(ttft for sent, ttft in self.ttfts if sent >= start)
        return times[int(quantile * len(times))]


async def client(service, random, patience=30.0):
    """One user: asks again, after what the refusal says and a jitter, until ``patience`` ends."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + patience
    while True:
        try:
            async with service(make_call()) as reply:
                async for _ in reply.events:
                    pass
                return
        except UpstreamThrottled as error:
            told = error.retry_after or 0.0
            await asyncio.sleep(told + random.uniform(0, 8 if error.status else 0.5))
        if loop.time() > give_up:
            return


def tell(line):
    """Print a figure, seen with pytest -s."""
    sys.stdout.write(f"{line}\n")


def overload(upstream, limits, *, rate, seconds=900, watch=None):
    """Offer ``rate`` calls a second to gateways with these limits; a limit of None is no gateway.

    Returns when ``seconds`` are over; ``watch`` is called with the time at each arrival.
    """
    seed = upstream.random.random()
    random = Random(seed)
    meter = RecordingMeter()

    async def main():
        clock = LoopClock()
        gateways = [
            AdaptiveConcurrency(
                upstream,
                upstream="up",
                permits=Permits(limit, clock=clock),
                patience=30.0,
                clock=clock,
                meter=meter,
            )
            if limit is not None
            else upstream
            for limit in limits
        ]
        clients = set()
        loop = asyncio.get_running_loop()
        while loop.time() < seconds:
            task = asyncio.create_task(client(random.choice(gateways), random))
            clients.add(task)
            task.add_done_callback(clients.discard)
            if watch is not None:
                watch(loop.time())
            await asyncio.sleep(random.expovariate(rate))
        upstream.account()
        for task in list(clients):
            task.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    run_virtual(main())
    return meter

"""Traffic of streams that break in the middle, through the real rescue, in virtual time."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field

from policies.errors import StreamInterrupted, UpstreamUnavailable
from policies.failover import Failover, Step
from policies.rescue import Rescue, RescueOptions
from tests.kit.chunked import ChunkedUpstream
from tests.kit.upstream import RecordingMeter, make_call
from tests.kit.virtual_time import run_virtual

TOKENS = 60
WORDS = ["the", "tide", "gate", "opens", "at", "dawn", "and", "closes", "late"]
FAULTS = [
    StreamInterrupted("cut"),
    StreamInterrupted("stall"),
    UpstreamUnavailable("malformed chunk"),
    None,
]
"""A fault of None ends the stream without a finish_reason."""


@dataclass
class Flaky:
    """An upstream that breaks a share of its streams, anywhere after the first token.

    ``sampled`` means that it never says the same twice; else its text is the answer at temperature 0.
    """

    name: str
    rng: random.Random
    breaks: float
    prefills: bool = False
    sampled: bool = False
    said: list[str] = field(default_factory=list)

    def __call__(self, call):
        rng = self.rng if self.sampled else random.Random(7)
        pieces = [f"{rng.choice(WORDS)} " for _ in range(TOKENS)]
        self.said.append("".join(pieces))
        cut = self.rng.randint(1, TOKENS - 1) if self.rng.random() < self.breaks else None
        fault = self.rng.choice(FAULTS)
        return ChunkedUpstream(self.name, pieces, cut=cut, fault=fault, prefills=self.prefills)(call)


def broken_streams(mode, *, breaks=0.2, calls=400, seed=2):
    """How calls end and how many replies were opened, over two upstreams that break ``breaks`` of them.

    ``mode`` is "off", "continue" (both accept a prefill), "restart" (at temperature 0) or "sampled".
    """
    rng = random.Random(seed)
    upstreams = [Flaky(name, rng, breaks, mode == "continue", mode == "sampled") for name in "ab"]
    meter = RecordingMeter()

    def untried(name):
        return lambda call: all(attempt.upstream != name for attempt in call.attempts)

    steps = [Step(upstream.name, upstream, another=untried(upstream.name)) for upstream in upstreams]
    route = Failover(steps, meter=meter)
    options = RescueOptions("error" if mode == "off" else "rescue")
    service = Rescue(route, options, continuing=route if mode == "continue" else None, meter=meter)
    ends: Counter[str] = Counter()

    async def one():
        text = []
        try:
            async with service(make_call()) as reply:
                async for event in reply.events:
                    text.append(event.text)  # noqa: PERF401 - what came before an error counts
        except StreamInterrupted:
            ends["error"] += 1
            return
        whole = "".join(text)
        ends["whole" if any(whole in upstream.said for upstream in upstreams) else "wrong"] += 1

    async def run():
        async with asyncio.TaskGroup() as group:
            for _ in range(calls):
                group.create_task(one())

    run_virtual(run())
    opened = sum(len(upstream.said) for upstream in upstreams)
    return {end: ends[end] / calls for end in ("whole", "error", "wrong")}, opened / calls

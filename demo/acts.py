"""What the upstreams do in turn: each is well, until it has its act."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.kit.processes import Upstream

MODEL = "chat"
"""The name under which all of them serve."""


@dataclass(frozen=True, slots=True)
class Act:
    """An upstream's misbehaviour, in words for people and in those of ``tests.kit.behaviours``."""

    upstream: str
    says: str
    behaviour: str


WELL = {
    "alpha": "ok:tokens=40,first=0.15,gap=0.02",
    "beta": "ok:tokens=40,first=0.25,gap=0.025",
    "gamma": "ok:tokens=40,first=0.4,gap=0.025",
}
ACTS = (
    Act("alpha", "says that it is busy (503, retry after a second)", "status:code=503,after=1"),
    Act("beta", "breaks off in the middle of its answers", "cut:at=15,tokens=40,first=0.2,gap=0.015"),
    Act("alpha", "takes its time to begin", "ok:tokens=40,first=1.6,gap=0.02"),
    Act("beta", "takes two calls at a time, and no more (429)", "slots:limit=2,code=429,tokens=40,gap=0.02"),
    Act("alpha", "falls silent in the middle of its answers", "stall:at=10,tokens=40,first=0.15,gap=0.02"),
    Act("gamma", "fails (500)", "status:code=500"),
)


async def perform(upstreams: Mapping[str, Upstream], seconds: float, say: Callable[[str], None]) -> None:
    """Play the acts over and over, each for so many seconds with as long a pause before the next round."""
    for name in upstreams:
        await _behave(upstreams[name], WELL[name])
    while True:
        for act in ACTS:
            say(f"{act.upstream} {act.says}")
            await _behave(upstreams[act.upstream], act.behaviour)
            await asyncio.sleep(seconds)
            await _behave(upstreams[act.upstream], WELL[act.upstream])
        say("all upstreams are well")
        await asyncio.sleep(seconds)


async def _behave(upstream: Upstream, behaviour: str) -> None:
    await asyncio.to_thread(upstream.behave, MODEL, behaviour)

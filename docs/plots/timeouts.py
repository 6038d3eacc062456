"""Draws docs/img/policies/timeouts.svg from virtual time. Run: PYTHONPATH=. python docs/plots/timeouts.py."""

# ruff: noqa: INP001 - a script
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "tidegate"
from matplotlib import pyplot as plt  # noqa: E402 - the backend comes first

from policies.errors import StreamInterrupted  # noqa: E402
from policies.service import Call, Event, Reply  # noqa: E402
from policies.timers import SilenceTimers, TimerOptions  # noqa: E402
from tests.kit.upstream import RecordingMeter, make_call  # noqa: E402
from tests.kit.virtual_time import (  # noqa: E402
    LoopClock,
    run_virtual,
)

PAUSES = [
    (2, True),
    (3, True),
    (12, True),
    (20, True),
    (8, False),
    (8, False),
    (8, False),
    (8, False),
    (8, False),
]


@asynccontextmanager
async def upstream(_call: Call) -> AsyncIterator[Reply]:
    """Content at first, then nothing but empty deltas."""

    async def events() -> AsyncIterator[Event]:
        yield Event(data=b"")
        for pause, content in PAUSES:
            await asyncio.sleep(pause)  # noqa: TID251 - virtual time
            yield Event(data=b"", content=content)

    yield Reply(events=events(), upstream="up", model="m", stream=True)


async def watch() -> tuple[list[tuple[float, bool]], float]:
    """Read until the stall: the events' times, and when it was noticed."""
    meter, loop = RecordingMeter(), asyncio.get_running_loop()
    options = TimerOptions(stall=30)
    service = SilenceTimers(upstream, upstream="up", options=options, clock=LoopClock(), meter=meter)
    seen = []
    try:
        async with service(make_call()) as reply:
            async for event in reply.events:
                seen.append((loop.time(), event.content))  # noqa: PERF401 - kept when the stall comes
    except StreamInterrupted:
        pass
    return seen, loop.time()


def main() -> None:
    """Draw."""
    seen, end = run_virtual(watch())
    figure, axes = plt.subplots(figsize=(7, 2.2))
    axes.plot([at for at, content in seen if content], [1] * 5, "o", label="content")
    axes.plot(
        [at for at, content in seen if not content],
        [1] * 3,
        "x",
        color="0.5",
        label="empty delta, keep-alive",
    )
    last = max(at for at, content in seen if content)
    axes.hlines(0.9, last, end, color="C3", label="stall: 30 s without content")
    axes.axvline(end, color="C3", linestyle=":")
    axes.set(ylim=(0.7, 1.5), yticks=[], xlabel="seconds", title="What resets the stall timer")
    axes.legend(fontsize=8, ncols=3)
    figure.tight_layout()
    figure.savefig("docs/img/policies/timeouts.svg", metadata={"Date": None})


main()

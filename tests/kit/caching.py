"""A cache over a scripted upstream, in virtual time: seconds since the epoch are the loop's seconds."""

import asyncio
import json
from dataclasses import dataclass, field

from policies.cache.coalesce import Coalesce
from policies.cache.directives import parse
from policies.cache.exact import Cache, Shelf
from policies.cache.fill import Fill
from policies.cache.memory import MemoryCache
from policies.cache.reuse import CacheOptions
from policies.service import Operation
from tests.kit.upstream import RecordingMeter, make_call
from tests.kit.virtual_time import LoopClock

MESSAGES = [{"role": "user", "content": "hi"}]


def now():
    return asyncio.get_running_loop().time()


def ask(cache_control="", *, stream=False, tenant="acme", model="m", operation=Operation.CHAT, **fields):
    """A call that may be answered from the cache."""
    body = {"model": model, "messages": MESSAGES, "temperature": 0, "stream": stream, **fields}
    return make_call(
        body=body,
        stream=stream,
        tenant=tenant,
        model=model,
        operation=operation,
        directives=parse(cache_control),
    )


@dataclass
class Scene:
    """The layers as they stand in the stack."""

    upstream: object
    options: CacheOptions = field(default_factory=CacheOptions)
    store: object = None
    trusted: object = staticmethod(lambda _call, _reply: True)
    meter: RecordingMeter = field(default_factory=RecordingMeter)
    tasks: set = field(default_factory=set)

    def __post_init__(self):
        self.store = self.store or MemoryCache(now)
        fill = Fill(self.upstream, self.options, store=self.store, trusted=self.trusted, wall_time=now)
        self.coalesce = Coalesce(fill, clock=LoopClock(), meter=self.meter)
        self.service = Cache(
            self.coalesce,
            self.options,
            shelf=Shelf(self.store),
            clock=LoopClock(),
            wall_time=now,
            spawn=self.spawn,
            meter=self.meter,
        )

    def spawn(self, work):
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def read(self, call):
        """The state, and the text or the body."""
        async with self.service(call) as reply:
            events = [event async for event in reply.events]
        text = "".join(event.text for event in events) if call.stream else json.loads(events[0].data)
        return reply.cached.state.value, text

"""A scripted upstream in tower's (service, handle) style: each attempt plays the next part of a script."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from policies.service import Call, Event, Operation, Reply, Usage


@dataclass(frozen=True)
class Wait:
    """A pause in a script, in seconds of the loop's time."""

    seconds: float


Step = str | Wait | BaseException
"""A text delta, a pause, or an error to raise."""


def make_call(**facts: object) -> Call:
    """A streaming chat call; ``facts`` override its fields."""
    defaults: dict[str, object] = {
        "id": "req_test",
        "operation": Operation.CHAT,
        "model": "m",
        "body": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
        "stream": True,
    }
    return Call(**{**defaults, **facts})  # type: ignore[arg-type]


@dataclass
class ScriptedUpstream:
    """Plays ``script[k]`` at its k-th opening; the last part is repeated.

    Steps before the first text happen while the reply is opened, later ones while it is read; a
    part that ends without an error ends with finish_reason "stop" and ``usage``.
    """

    script: list[list[Step]]
    name: str = "up"
    usage: Usage = field(default_factory=lambda: Usage(input=3, output=2))
    opened: list[float] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    active: int = 0
    most_active: int = 0

    @asynccontextmanager
    async def __call__(self, call: Call) -> AsyncIterator[Reply]:
        part = self.script[min(len(self.opened), len(self.script) - 1)]
        self.opened.append(asyncio.get_running_loop().time())
        self.calls.append(call)
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            steps = iter(part)
            first = await self._first(steps)
            reply = Reply(upstream=self.name, model=call.model, stream=call.stream)
            async with aclosing(self._events(first, steps, reply)) as events:
                reply.events = events
                yield reply
        finally:
            self.active -= 1

    async def _first(self, steps: Iterable[Step]) -> str:
        for step in steps:
            if isinstance(step, str):
                return step
            await _play(step)
        return ""

    async def _events(self, first: str, rest: Iterable[Step], reply: Reply) -> AsyncIterator[Event]:
        yield Event(data=first.encode(), text=first)
        for step in rest:
            if isinstance(step, str):
                yield Event(data=step.encode(), text=step)
            else:
                await _play(step)
        reply.usage = self.usage
        reply.complete = True
        yield Event(data=b"stop", content=False, finish_reason="stop", usage=self.usage)


async def _play(step: Wait | BaseException) -> None:
    if isinstance(step, Wait):
        await asyncio.sleep(step.seconds)
    else:
        raise step


async def read_text(service: object, call: Call) -> str:
    """Open a reply, read it to its end and return its text."""
    text = ""
    async with service(call) as reply:  # type: ignore[operator]
        async for event in reply.events:
            text += event.text
            call.delivered = len(text)
    return text


@dataclass
class RecordingMeter:
    """Keeps the facts it hears."""

    facts: list[object] = field(default_factory=list)

    def emit(self, fact: object) -> None:
        self.facts.append(fact)

    def of(self, kind: type) -> list[object]:
        return [fact for fact in self.facts if isinstance(fact, kind)]

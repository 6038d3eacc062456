"""An upstream in OpenAI's form for virtual time: each attempt gives the next of its answers, or fails."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from policies.service import Call, Event, Reply, Usage


@dataclass
class AnsweringUpstream:
    """``answers`` are texts or errors, the last of which is repeated.

    A text comes word by word, ``pause`` seconds before each, and ends with ``finish``; ``breaks`` fails a
    stream after so many words.
    """

    answers: list[str | Exception] = field(default_factory=lambda: ["hello there"])
    pause: float = 0.0
    finish: str = "stop"
    breaks: tuple[int, Exception] | None = None
    opened: int = 0
    active: int = 0
    calls: list[Call] = field(default_factory=list)

    @asynccontextmanager
    async def __call__(self, call: Call) -> AsyncIterator[Reply]:
        answer = self.answers[min(self.opened, len(self.answers) - 1)]
        self.opened += 1
        self.active += 1
        self.calls.append(call)
        try:
            await asyncio.sleep(self.pause)
            if isinstance(answer, Exception):
                raise answer
            reply = Reply("up", "m", stream=call.stream)
            reply.events = self._stream(reply, answer) if call.stream else self._whole(reply, answer)
            yield reply
        finally:
            self.active -= 1

    async def _whole(self, reply: Reply, text: str) -> AsyncIterator[Event]:
        await asyncio.sleep(self.pause)
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": self.finish}
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        body = {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        reply.usage, reply.complete = Usage(3, 2), True
        yield Event(json.dumps({**body, "usage": usage}).encode())

    async def _stream(self, reply: Reply, text: str) -> AsyncIterator[Event]:
        head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        for number, word in enumerate(text.split(" ")):
            if self.breaks is not None and number == self.breaks[0]:
                raise self.breaks[1]
            if number:
                await asyncio.sleep(self.pause)
            piece = word if not number else f" {word}"
            choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
            yield Event(json.dumps({**head, "choices": [choice]}).encode(), text=piece)
        reply.usage, reply.complete = Usage(3, 2), True
        end = {"index": 0, "delta": {}, "finish_reason": self.finish}
        yield Event(json.dumps({**head, "choices": [end]}).encode(), content=False, finish_reason=self.finish)
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        yield Event(
            json.dumps({**head, "choices": [], "usage": usage}).encode(), content=False, bookkeeping=True
        )

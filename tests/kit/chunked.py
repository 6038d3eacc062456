"""An upstream that streams OpenAI chunks of a known text, breaks where told to, and can take a prefill."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from policies.service import Attempt, Call, Event, Operation, Reply, Usage


def chunk(identity: str, delta: dict[str, object], *, finish: str | None = None, **more: object) -> bytes:
    """A chunk of a chat stream as its JSON text."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": identity, "object": "chat.completion.chunk", "created": 7, "model": f"model-of-{identity}"}
    return json.dumps({**body, "choices": [choice], **more}).encode()


def text_event(identity: str, text: str) -> Event:
    return Event(chunk(identity, {"content": text}), text=text)


def reasoning_event(identity: str, text: str) -> Event:
    return Event(chunk(identity, {"reasoning_content": text}))


def tool_event(identity: str) -> Event:
    return Event(chunk(identity, {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}))


def finish_event(identity: str, usage: Usage | None = None) -> Event:
    data = None
    if usage is not None:
        data = {
            "prompt_tokens": usage.input,
            "completion_tokens": usage.output,
            "total_tokens": usage.input + usage.output,
        }
    return Event(
        chunk(identity, {}, finish="stop", usage=data), content=False, finish_reason="stop", usage=usage
    )


def content_of(data: bytes) -> str:
    """The text in a chunk's JSON, which is what the client sees."""
    (choice,) = json.loads(data)["choices"]
    holder = choice["delta"] if "delta" in choice else {"content": choice["text"]}
    return holder.get("content") or ""


def prefill_of(call: Call) -> str:
    """The assistant's text that the call asks to go on from."""
    if call.operation is Operation.COMPLETION:
        return str(call.body["prompt"]).removeprefix("hi")
    last = call.body["messages"][-1]
    return last["content"] if last["role"] == "assistant" else ""


@dataclass
class ChunkedUpstream:
    """Streams ``pieces`` as chunks and enters itself into the call's history.

    ``cut`` is after how many pieces it raises ``fault``; a fault of None just ends the stream there.
    Given a prefill, it sends the rest of its text after it, if ``prefills``; else its whole text.
    """

    name: str
    pieces: Sequence[str]
    cut: int | None = None
    fault: Exception | None = None
    prefills: bool = False
    before: Sequence[Event] = ()
    calls: list[Call] = field(default_factory=list)
    errors: list[BaseException | None] = field(default_factory=list)
    active: int = 0

    @asynccontextmanager
    async def __call__(self, call: Call) -> AsyncIterator[Reply]:
        self.calls.append(call)
        attempt = Attempt(self.name, call.model)
        call.attempts.append(attempt)
        self.active += 1
        error: BaseException | None = None
        try:
            await asyncio.sleep(0.1)
            reply = Reply(upstream=self.name, model=f"model-of-{self.name}", stream=True)
            async with aclosing(self._events(call, reply)) as events:
                reply.events = events
                yield reply
        except BaseException as exc:
            error = exc
            raise
        finally:
            attempt.outcome = type(error).__name__ if error else "ok"
            self.errors.append(error)
            self.active -= 1

    async def _events(self, call: Call, reply: Reply) -> AsyncIterator[Event]:
        yield Event(chunk(self.name, {"role": "assistant", "content": ""}), content=False)
        for event in self.before:
            yield event
        pieces = _after(self.pieces, prefill_of(call)) if self.prefills else self.pieces
        for index, piece in enumerate(pieces):
            if index == self.cut:
                break
            await asyncio.sleep(0.01)
            yield text_event(self.name, piece)
        if self.cut is not None and self.cut <= len(pieces):
            if self.fault is not None:
                raise self.fault
            return
        reply.usage = Usage(input=10 + len(prefill_of(call)), output=len(pieces))
        reply.complete = True
        yield finish_event(self.name, reply.usage)


def _after(pieces: Sequence[str], prefix: str) -> list[str]:
    """The pieces of the text after its ``prefix``; nothing of it if the text is another one."""
    text = "".join(pieces)
    rest = []
    done = len(prefix) if text.startswith(prefix) else 0
    for piece in pieces:
        rest.append(piece[done:])
        done = max(0, done - len(piece))
    return [piece for piece in rest if piece]

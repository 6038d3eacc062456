"""How the faulty upstream misbehaves: one function for each name that a model can ask for.

A model's name is ``anything/NAME`` or ``anything/NAME:option=value,option=value``. Options that every
streamed answer understands:

    tokens=12    how many tokens the answer has
    first=0      seconds of silence before anything is sent
    comments=0   seconds of keep-alive before the answer, at most until its model is released:
                 comments in a stream, blank lines before a body
    gap=0        seconds between tokens
    held         after how many tokens "ok" falls silent until its model is released; 0 sends no head before,
                 and does so in every stream
    split=0      write the stream in pieces of so many bytes, whatever they cut
    crlf=0       1 ends lines with CR LF
    done=1       0 leaves out [DONE]
    finish=stop  the finish_reason, of whole bodies too

Every behaviour understands ``times=N``: it is shown to the first N requests for this model, and the
rest are served.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from tests.kit import answers
from tests.kit.connection import Answer, Request

_KEEP_ALIVE_INTERVAL = 0.05
_FOREVER = 3600.0
_EVENT_STREAM = "text/event-stream"


@dataclass
class Visit:
    """One request, the behaviour's options, and what its model's name has in common with other requests.

    ``prefilled`` is how many tokens of the answer the request gave.
    """

    request: Request
    body: dict[str, Any]
    options: dict[str, str]
    answer: Answer
    shared: dict[str, Any] = field(default_factory=dict)
    prefilled: int = 0

    @property
    def model(self) -> str:
        return str(self.body.get("model", ""))

    @property
    def chat(self) -> bool:
        return self.request.path.endswith("/chat/completions")

    @property
    def streams(self) -> bool:
        return bool(self.body.get("stream"))

    def number(self, name: str, default: float) -> float:
        return float(self.options.get(name, default))

    def count(self, name: str, default: int) -> int:
        return int(self.options.get(name, default))

    async def hold(self, sent: int | None = None) -> None:
        """Wait until the model is released, if it is held after what was sent; None is an unary answer."""
        if "held" in self.options and sent in {None, self.count("held", 0)}:
            await released(self.shared).wait()


def released(shared: dict[str, Any]) -> asyncio.Event:
    """Whether those who are held may go on; ``shared`` is what a model's requests have in common."""
    event: asyncio.Event = shared.setdefault("released", asyncio.Event())
    return event


Behaviour = Callable[[Visit], Awaitable[None]]
BEHAVIOURS: dict[str, Behaviour] = {}


def _behaviour(function: Behaviour) -> Behaviour:
    BEHAVIOURS[function.__name__.strip("_")] = function
    return function


class Stream:
    """Server-sent events with the manners that the options ask for."""

    def __init__(self, visit: Visit, kind: str = _EVENT_STREAM) -> None:
        self._visit = visit
        self._kind = kind
        self._line_end = b"\r\n" if visit.count("crlf", 0) else b"\n"
        self._split = visit.count("split", 0)

    async def open(self, *, chunked: bool = True) -> None:
        """Wait as long as asked and send the head."""
        visit = self._visit
        await visit.hold(0)
        await asyncio.sleep(visit.number("first", 0))
        await visit.answer.begin(self._kind, chunked=chunked)
        await _keep_alive(visit, b": keep-alive" + 2 * self._line_end)

    async def message(self, data: str | dict[str, Any]) -> None:
        """One message; JSON if it isn't text."""
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
        await self._write(b"data: " + text.encode() + 2 * self._line_end)

    async def chunk(self, **choice: Any) -> None:
        """One chunk of an answer."""
        await self.message(answers.chunk(self._visit.model, choice, chat=self._visit.chat))

    async def role(self, index: int = 0) -> None:
        """The chunk that a chat begins with."""
        if self._visit.chat:
            await self.chunk(index=index, delta={"role": "assistant", "content": ""})

    async def token(self, text: str, index: int = 0) -> None:
        """One token, after the gap that was asked for."""
        await asyncio.sleep(self._visit.number("gap", 0))
        await self.chunk(
            index=index, **({"delta": {"content": text}} if self._visit.chat else {"text": text})
        )

    async def finish(self, count: int, reason: str | None = None, choices: int = 1) -> None:
        """finish_reason of every choice, and the end."""
        self._visit.answer.finishing = asyncio.get_running_loop().time()
        reason = reason or self._visit.options.get("finish", "stop")
        empty: dict[str, Any] = {"delta": {}} if self._visit.chat else {"text": ""}
        for index in range(choices):
            await self.chunk(index=index, finish_reason=reason, **empty)
        await self.end(count)

    async def end(self, count: int) -> None:
        """Usage where the client asked for it, [DONE], and the end."""
        visit = self._visit
        if (visit.body.get("stream_options") or {}).get("include_usage"):
            chunk = answers.usage_chunk(visit.model, count, visit.prefilled, chat=visit.chat)
            await self.message(chunk)
        if visit.count("done", 1):
            await self.message("[DONE]")
        await visit.answer.end()

    async def _write(self, data: bytes) -> None:
        step = self._split or len(data)
        for start in range(0, len(data), step):
            await self._visit.answer.piece(data[start : start + step])
            if self._split:
                await asyncio.sleep(0)  # lets every piece travel by itself


async def _keep_alive(visit: Visit, line: bytes) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + visit.number("comments", 0)
    while loop.time() < until and not released(visit.shared).is_set():
        await visit.answer.piece(line)
        await asyncio.sleep(_KEEP_ALIVE_INTERVAL)


def _remaining(visit: Visit, default: int) -> list[str]:
    """The tokens to send: all, or those after the assistant's message that the answer shall go on from."""
    tokens = answers.pieces(visit.count("tokens", default))
    messages = visit.body["messages"] if visit.chat else [{"role": "user"}]
    prefix = messages[-1].get("content") if messages[-1].get("role") == "assistant" else ""
    while prefix and tokens and prefix.startswith(tokens[0]):
        prefix = prefix.removeprefix(tokens.pop(0))
        visit.prefilled += 1
    if prefix and tokens and tokens[0].startswith(prefix):
        tokens[0] = tokens[0].removeprefix(prefix)
    return tokens


@_behaviour
async def ok(visit: Visit) -> None:
    """Answer properly."""
    if visit.request.path.endswith("/embeddings"):
        given = visit.body.get("input")
        inputs = given if isinstance(given, list) else [given]
        await visit.answer.whole(200, answers.embeddings(visit.model, inputs))
        return
    tokens = _remaining(visit, 12)
    choices = int(visit.body.get("n") or 1)
    if not visit.streams:
        text = "".join(tokens)
        message = {"message": {"role": "assistant", "content": text}} if visit.chat else {"text": text}
        message["finish_reason"] = visit.options.get("finish", "stop")
        await _whole(visit, [message] * choices, len(tokens))
        return
    stream = Stream(visit)
    await stream.open()
    for index in range(choices):
        await stream.role(index)
    for sent, token in enumerate(tokens):
        await visit.hold(sent)
        for index in range(choices):
            await stream.token(token, index)
    await stream.finish(len(tokens), choices=choices)


async def _whole(visit: Visit, choices: list[dict[str, Any]], count: int) -> None:
    body = json.dumps(answers.whole(visit.model, choices, count, chat=visit.chat), ensure_ascii=False)
    await visit.hold()
    await asyncio.sleep(visit.number("first", 0) + visit.number("gap", 0) * count)
    await visit.answer.begin("application/json")
    await _keep_alive(visit, b"\n")
    await visit.answer.piece(body.encode())
    await visit.answer.end()


@_behaviour
async def reasoning(visit: Visit) -> None:
    """Think in ``reasoning_content`` before the answer, as DeepSeek's reasoning models do."""
    thought, tokens = answers.pieces(4), _remaining(visit, 8)
    if not visit.streams:
        message = {"role": "assistant", "content": "".join(tokens), "reasoning_content": "".join(thought)}
        await _whole(visit, [{"message": message}], 12)
        return
    stream = Stream(visit)
    await stream.open()
    await stream.role()
    for token in thought:
        await stream.chunk(delta={"content": None, "reasoning_content": token})
    for token in tokens:
        await stream.token(token)
    await stream.finish(12)


@_behaviour
async def tools(visit: Visit) -> None:
    """Call a tool."""
    call = answers.TOOL_CALL
    if not visit.streams:
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        await _whole(visit, [{"message": message, "finish_reason": "tool_calls"}], 9)
        return
    stream = Stream(visit)
    await stream.open()
    await stream.role()
    function: dict[str, str] = call["function"]  # type: ignore[assignment]
    half = len(function["arguments"]) // 2
    first = {**call, "index": 0, "function": {**function, "arguments": function["arguments"][:half]}}
    await stream.chunk(delta={"tool_calls": [first]})
    await stream.chunk(
        delta={"tool_calls": [{"index": 0, "function": {"arguments": function["arguments"][half:]}}]}
    )
    await stream.finish(9, "tool_calls")


@_behaviour
async def cut(visit: Visit) -> None:
    """Break off after ``at`` of ``tokens``; ``at`` 0 breaks off after the head and the role.

    ``how`` is rst, fin, clean: a proper end without an end, or done: that with [DONE] before it.
    """
    how = visit.options.get("how", "rst")
    at = visit.count("at", 40)
    if not visit.streams:
        await visit.answer.begin("application/json")
        await visit.answer.piece(b'{"id": "chatcmpl-tide", "choices": [{"message": {"content": "')
        await _break_off(visit, how)
        return
    stream = Stream(visit)
    await stream.open()
    await stream.role()
    for token in _remaining(visit, 60)[:at]:
        await stream.token(token)
    if how == "done":
        await stream.message("[DONE]")
    await _break_off(visit, how)


async def _break_off(visit: Visit, how: str) -> None:
    if how in {"clean", "done"}:
        await visit.answer.end()
        return
    await visit.answer.read()
    await asyncio.sleep(0.05)  # what was read from a connection is lost with it until it was looked at
    if how == "fin":
        visit.answer.close()
    else:
        visit.answer.reset()


@_behaviour
async def stall(visit: Visit) -> None:
    """Fall silent after ``at`` tokens; ``comments=1`` keeps sending keep-alive comments."""
    chatty = visit.options.pop("comments", "0") != "0"
    if not visit.streams:
        await silence(visit)
    stream = Stream(visit)
    await stream.open()
    await stream.role()
    for token in _remaining(visit, 60)[: visit.count("at", 20)]:
        await stream.token(token)
    if chatty:
        visit.options["comments"] = str(_FOREVER)
        await _keep_alive(visit, b": keep-alive\n\n")
    await asyncio.sleep(_FOREVER)


_MALFORMED = {
    "cut": '{"id": "chatcmpl-tide", "choices": [{"del',
    "number": "7",
    "null": "null",
    "list": "[]",
    "word": "ping",
    "shape": '{"id": "chatcmpl-tide", "choices": {"delta": 7}}',
}


@_behaviour
async def malformed(visit: Visit) -> None:
    """Send something that isn't a chunk in the place of token ``at``, or with ``extra=1`` before it.

    ``what`` is cut, number, null, list, word or shape. ``at`` behind the last token is behind the finish.
    """
    stream = Stream(visit)
    at, garbage = visit.count("at", 10), _MALFORMED[visit.options.get("what", "cut")]
    await stream.open()
    await stream.role()
    tokens = _remaining(visit, 60)
    for number, token in enumerate(tokens, start=1):
        if number == at:
            await stream.message(garbage)
        if number != at or visit.count("extra", 0):
            await stream.token(token)
    if at <= len(tokens):
        await stream.finish(len(tokens))
        return
    await stream.chunk(delta={}, finish_reason="stop")
    await stream.message(garbage)
    await stream.end(len(tokens))


@_behaviour
async def uneven(visit: Visit) -> None:
    """Finish the first of two choices, and break off in the second after ``at`` tokens; ``how`` as in cut."""
    stream = Stream(visit)
    tokens = answers.pieces(visit.count("tokens", 12))
    await stream.open()
    for index in range(2):
        await stream.role(index)
    for token in tokens:
        await stream.token(token)
    await stream.chunk(delta={}, finish_reason="stop")
    for token in tokens[: visit.count("at", 5)]:
        await stream.token(token, 1)
    await _break_off(visit, visit.options.get("how", "rst"))


@_behaviour
async def error_chunk(visit: Visit) -> None:
    """Send an error as a chunk after ``at`` tokens."""
    stream = Stream(visit)
    await stream.open()
    await stream.role()
    for token in _remaining(visit, 60)[: visit.count("at", 5)]:
        await stream.token(token)
    await stream.message(answers.error("The model is overloaded.", code=visit.options.get("code")))
    await visit.answer.end()


@_behaviour
async def error_body(visit: Visit) -> None:
    """Answer 200 with an error object; ``code`` is its code."""
    code = visit.options.get("code", "busy")
    await visit.answer.whole(
        200, answers.error("The server is busy.", code=int(code) if code.isdigit() else code)
    )


@_behaviour
async def blank(visit: Visit) -> None:
    """Answer 200 with nothing, or with nothing but keep-alive where ``comments`` asks for it."""
    kind = _EVENT_STREAM if visit.streams else "application/json"
    if "comments" not in visit.options:
        await visit.answer.whole(200, "", kind=kind)
        return
    await visit.answer.begin(kind)
    await _keep_alive(visit, b": keep-alive\n\n" if visit.streams else b"\n")
    await visit.answer.end()


@_behaviour
async def html(visit: Visit) -> None:
    """Answer 200 with a web page."""
    await visit.answer.whole(200, "<!doctype html><title>Just a moment...</title>", kind="text/html")


@_behaviour
async def wrong_type(visit: Visit) -> None:
    """Answer properly, and call it text/plain."""
    tokens = _remaining(visit, 12)
    if not visit.streams:
        choice = {"message": {"role": "assistant", "content": "".join(tokens)}}
        body = answers.whole(visit.model, [choice], len(tokens), chat=visit.chat)
        await visit.answer.whole(200, json.dumps(body), kind="text/plain")
        return
    stream = Stream(visit, kind="text/plain")
    await stream.open()
    await stream.role()
    for token in tokens:
        await stream.token(token)
    await stream.finish(len(tokens))


@_behaviour
async def status(visit: Visit) -> None:
    """Answer with HTTP status ``code``; ``after`` is Retry-After in seconds, ``form`` seconds, date or ms."""
    code = visit.count("code", 500)
    headers = {}
    if "after" in visit.options:
        headers = _retry_after(visit.number("after", 0), visit.options.get("form", "seconds"))
    kinds = {429: "rate_limit_error", 401: "authentication_error"}
    kind = kinds.get(code, "invalid_request_error" if code < 500 else "server_error")
    body = answers.error(f"upstream says {code}", kind, visit.options.get("error"))
    await visit.answer.whole(code, body, headers)


def _retry_after(seconds: float, form: str) -> dict[str, str]:
    if form == "ms":
        return {"retry-after-ms": str(int(seconds * 1000))}
    if form == "date":
        return {"retry-after": format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)}
    return {"retry-after": f"{seconds:g}"}


@_behaviour
async def reset(visit: Visit) -> None:
    """Reset the connection before any answer."""
    visit.answer.reset()


@_behaviour
async def garbage(visit: Visit) -> None:
    """Answer something that isn't HTTP."""
    await visit.answer.raw(b"\x15\x03\x01\x00\x02\x02\x50 not http\r\n\r\n")
    visit.answer.close()


@_behaviour
async def silence(visit: Visit) -> None:
    """Take the request and say nothing."""
    await asyncio.sleep(_FOREVER)


@_behaviour
async def slots(visit: Visit) -> None:
    """Serve ``limit`` at once and answer ``code`` (503) to the rest."""
    await _within(visit, visit.count("limit", 2))


@_behaviour
async def hidden_limit(visit: Visit) -> None:
    """Serve ``high`` at once for ``period`` seconds, then ``low`` for as long, and so on."""
    loop = asyncio.get_running_loop()
    since = visit.shared.setdefault("since", loop.time())
    phase = int((loop.time() - since) / visit.number("period", 10)) % 2
    await _within(visit, visit.count("low", 2) if phase else visit.count("high", 8))


async def _within(visit: Visit, limit: int) -> None:
    shared = visit.shared
    if shared.setdefault("active", 0) >= limit:
        code = visit.count("code", 503)
        await visit.answer.whole(code, answers.error("Too many requests at once."))
        return
    shared["active"] += 1
    try:
        await ok(visit)
    finally:
        shared["active"] -= 1


@_behaviour
async def flapping(visit: Visit) -> None:
    """Serve for ``up`` seconds, answer ``code`` (500) for ``down`` seconds, and so on."""
    loop = asyncio.get_running_loop()
    up, down = visit.number("up", 2), visit.number("down", 2)
    since = visit.shared.setdefault("since", loop.time())
    if (loop.time() - since) % (up + down) < up:
        await ok(visit)
    else:
        visit.options.setdefault("code", "500")
        await status(visit)

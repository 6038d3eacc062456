"""What was delivered of a broken stream, and how another reply is cut so that it goes on from there.

The pure half of ``policies.rescue``. A splice passes nothing on before the new reply has reproduced what
it is expected to reproduce, then everything after that point, as parts of the first reply: the same
id, creation time and model name in every chunk, which is what tells clients that chunks belong
together. Chunks are parsed and written again here only, never on the way of a stream that runs well.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from policies.service import Call, Event, Operation, Usage

_TOOL_CALL = re.compile(rb'"(?:tool_calls|function_call)"\s*:\s*[\[{]')
_REASONING = re.compile(rb'"reasoning(?:_content|_details)?"\s*:\s*["\[{]')
_ECHO = 64
"""So many characters of the answer's beginning, or all of it, aren't a continuation but a new answer."""
_IDENTITY = ("id", "created", "model", "system_fingerprint")
_CONSTRAINTS = ("tools", "functions", "suffix", "grammar", "structured_outputs")
_MANY = ("n", "best_of")
_UNCUTTABLE = ("logprobs", "top_logprobs", "echo", "audio")


class Diverged(Exception):
    """The new reply isn't one that the delivered text can go on with."""


class Transcript:
    """What the client has been given of an answer.

    While ``plain``, an event that is nothing but text needs no ``add``: appending it to ``texts`` is all.
    """

    __slots__ = ("_reasoning", "_tools", "cuttable", "finished", "first", "plain", "texts", "usage")

    def __init__(self, call: Call) -> None:
        self.texts: list[str] = []
        self.plain = False
        self._reasoning = 0
        self._tools = bool(call.body.get("tools") or call.body.get("functions"))
        self.cuttable = True
        self.finished = False
        self.first: bytes | None = None
        self.usage: Usage | None = None

    def add(self, event: Event) -> None:
        """Take in an event before it is given to the client."""
        if self.first is None and event.content:
            self.first = event.data
        if event.text:
            self.texts.append(event.text)
            self.plain = not self._tools
        elif event.content:
            self._add_silent(event)
        if event.finish_reason is not None:
            self.finished = True
        if event.usage is not None:
            self.usage = event.usage
        if self._tools and _TOOL_CALL.search(event.data):
            self.cuttable = False

    def _add_silent(self, event: Event) -> None:
        if self.texts or not is_reasoning(event):
            self.cuttable = False
        self._reasoning += 1

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def resumable(self) -> bool:
        """Whether another reply can be joined on: nothing but text, or reasoning with text after it."""
        return self.cuttable and (bool(self.texts) or not self._reasoning)

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens of text and of the whole delivered output: as counted upstream, else one an event."""
        if self.usage is not None:
            return self.usage.output - self.usage.reasoning, self.usage.output
        return len(self.texts), len(self.texts) + self._reasoning


class Splice:
    """Turns the events of a new reply into the rest of a broken one.

    ``prefix`` is what the new reply goes on from: the delivered text or its beginning where it was given
    as a prefill, "" where the call was made again. A target that takes no notice of the prefill answers
    from the beginning; so a continuation that repeats the beginning isn't trusted.
    """

    __slots__ = ("_echo", "_expected", "_held", "_identity", "_matched", "_prefilled", "_tokens")

    def __init__(self, delivered: Transcript, prefix: str) -> None:
        self._expected = delivered.text[len(prefix) :]
        self._echo = delivered.text[:_ECHO] if prefix else ""
        self._held: list[Event] = []
        self._matched = 0
        self._prefilled = bool(prefix)
        self._tokens = delivered.tokens if prefix else (0, 0)
        first = _parse(delivered.first) if delivered.first is not None else {}
        self._identity = {key: first[key] for key in _IDENTITY if key in first}

    @property
    def matched(self) -> bool:
        """Whether the new reply has shown that it goes on from what was delivered."""
        return not self._echo and self._matched == len(self._expected)

    def feed(self, event: Event) -> Sequence[Event]:
        """The events to pass on now that ``event`` came. Raises ``Diverged``."""
        skip = self._match(event) if self._matched < len(self._expected) else 0
        if self._matched == len(self._expected) and self._adds(event, skip):
            self._held.append(self._rewrite(event, skip))
        if self._echo:
            self._listen(event)
        if self._echo or not self._held:
            return ()
        held, self._held = self._held, []
        return held

    def _adds(self, event: Event, skip: int) -> bool:
        if event.text[skip:] or event.finish_reason is not None or event.usage is not None:
            return True
        return event.content and not event.text and not (self._prefilled and is_reasoning(event))

    def _listen(self, event: Event) -> None:
        """Hold a continuation back while it sounds like the answer from its beginning."""
        if event.text[: len(self._echo)] == self._echo:
            raise Diverged("the text from its beginning")
        if self._echo.startswith(event.text) and event.finish_reason is None:
            self._echo = self._echo[len(event.text) :]
        else:
            self._echo = ""

    def _match(self, event: Event) -> int:
        """How many characters of the event's text the client has already."""
        count = min(len(event.text), len(self._expected) - self._matched)
        if not self._expected.startswith(event.text[:count], self._matched):
            raise Diverged("another text")
        self._matched += count
        if self._matched < len(self._expected):
            if event.finish_reason is not None:
                raise Diverged("a shorter text")
            if event.content and not event.text and not is_reasoning(event):
                raise Diverged("something that isn't text")
        return count

    def _rewrite(self, event: Event, skip: int) -> Event:
        chunk = _parse(event.data)
        chunk.update(self._identity)
        if skip:
            _cut(chunk, event.text, skip)
        usage = event.usage and self.total(event.usage)
        if usage is not None and isinstance(chunk.get("usage"), dict):
            chunk["usage"] |= {
                "prompt_tokens": usage.input,
                "completion_tokens": usage.output,
                "total_tokens": usage.input + usage.output,
            }
        text = event.text[skip:]
        return Event(
            data=json.dumps(chunk, separators=(",", ":")).encode(),
            content=event.content and not (event.text and not text),
            text=text,
            finish_reason=event.finish_reason,
            usage=usage,
            bookkeeping=event.bookkeeping,
        )

    def total(self, usage: Usage) -> Usage:
        """What the client's whole answer used, ``usage`` being the new reply's.

        A prefill was counted as input and is output to the client; input and output add up to the same.
        """
        text, output = self._tokens
        given = max(0, usage.input - text)
        return replace(
            usage, input=given, output=usage.output + output, cached_input=min(usage.cached_input, given)
        )


def may_rescue(call: Call) -> bool:
    """Whether the call's answer is one text: a single choice without log probabilities or audio."""
    body = call.body
    if call.operation is Operation.EMBEDDING or any(body.get(key) for key in _UNCUTTABLE):
        return False
    if call.operation is Operation.COMPLETION and not isinstance(body.get("prompt"), str):
        return False
    return all(body.get(key) in (None, 1) for key in _MANY)


def may_continue(call: Call) -> bool:
    """Whether an assistant prefill means to the model what it means to us: a plain text so far."""
    body = call.body
    if any(body.get(key) for key in _CONSTRAINTS) or any(key.startswith("guided_") for key in body):
        return False
    form = body.get("response_format")
    if form is not None and not (isinstance(form, Mapping) and form.get("type") == "text"):
        return False
    if call.operation is Operation.COMPLETION:
        return True
    messages = body.get("messages")
    return isinstance(messages, list) and bool(messages) and messages[-1].get("role") != "assistant"


def repeatable(call: Call) -> bool:
    """Whether the caller asked for what the same model would say again."""
    return call.body.get("temperature") == 0 or call.body.get("seed") is not None


def with_prefill(call: Call, prefix: str, tokens: int) -> Call:
    """The call whose answer goes on from ``prefix``, which is ``tokens`` long; it shares the history.

    Chat: one more message, ``{"role": "assistant", "content": prefix, "prefix": true}`` as DeepSeek and
    Mistral spell it. Completions: a longer prompt. What the client allowed to be generated shrinks.
    """
    body = dict(call.body)
    if call.operation is Operation.COMPLETION:
        body["prompt"] = body["prompt"] + prefix
    else:
        body["messages"] = [*body["messages"], {"role": "assistant", "content": prefix, "prefix": True}]
    for limit in ("max_tokens", "max_completion_tokens"):
        if isinstance(body.get(limit), int):
            body[limit] = max(1, body[limit] - tokens)
    return replace(call, body=body)


def is_reasoning(event: Event) -> bool:
    """Whether an event without text adds to the reasoning, and to nothing else."""
    return bool(_REASONING.search(event.data)) and not _TOOL_CALL.search(event.data)


def _parse(data: bytes) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except ValueError as error:
        raise Diverged("a chunk that isn't JSON") from error
    if not isinstance(chunk, dict):
        raise Diverged("a chunk that isn't an object")
    return chunk


def _cut(chunk: dict[str, Any], text: str, skip: int) -> None:
    """Take the first ``skip`` characters out of the chunk's text."""
    try:
        (choice,) = chunk["choices"]
        holder, key = (choice["delta"], "content") if "delta" in choice else (choice, "text")
        if holder[key] != text:
            raise Diverged("a chunk that says something else than its text")
        holder[key] = text[skip:]
    except (KeyError, TypeError, ValueError) as error:
        raise Diverged("a chunk of an unknown shape") from error

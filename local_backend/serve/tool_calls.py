"""Finds the tool calls in an answer while it is being written.

The grammar that wrote them spells a call in one way only, so its parts are known as they come: the name when
the arguments begin, and the arguments piece by piece until their outermost bracket closes.
"""

import re
import secrets
from dataclasses import dataclass, field
from typing import Any

from local_backend.serve.tools import CALL_BEGIN, spell_tail

_BEFORE_NAME, _AFTER_NAME = CALL_BEGIN + '{"name": "', '", "arguments": '
_HEAD = re.compile(f'{re.escape(_BEFORE_NAME)}([^"]*){re.escape(_AFTER_NAME)}')
_BRACKETS = {"{": 1, "[": 1, "}": -1, "]": -1}


@dataclass
class Delta:
    """What a piece of the answer adds: text, and to calls in the form that OpenAI streams them."""

    text: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)


class ToolCallParser:
    """Reads one answer piece by piece; `calls` is how many calls have begun."""

    def __init__(self) -> None:
        self._held = ""
        self._arguments: _Json | None = None
        self.calls = 0

    def push(self, text: str) -> Delta:
        """What is certain now."""
        self._held += text
        delta = Delta()
        while self._advance(delta):
            pass
        return delta

    def flush(self, *, is_cut: bool = False) -> Delta:
        """What is left when the answer ends; of a call that is cut before its name nothing."""
        text, self._held = self._held, ""
        is_call = self._arguments is not None or (is_cut and text.startswith(CALL_BEGIN))
        return Delta() if is_call else Delta(text)

    def _advance(self, delta: Delta) -> bool:
        """Take one part out of what is held; False when none is whole."""
        if self._arguments is not None:
            return self._read_arguments(self._arguments, delta)
        if (head := _HEAD.match(self._held)) is not None:
            self._held = self._held[head.end() :]
            self._arguments = _Json()
            function = {"name": head[1], "arguments": ""}
            call = {"id": "call_" + secrets.token_hex(12), "type": "function", "function": function}
            delta.calls.append({"index": self.calls, **call})
            self.calls += 1
            return True
        start = _begin(self._held)
        text, self._held = self._held[:start], self._held[start:]
        delta.text += text
        return bool(text) and bool(self._held)

    def _read_arguments(self, arguments: "_Json", delta: Delta) -> bool:
        if arguments.is_open:
            size = arguments.feed(self._held)
            text, self._held = self._held[:size], self._held[size:]
            if text:
                delta.calls.append({"index": self.calls - 1, "function": {"arguments": text}})
        if arguments.is_open or not self._held.startswith(spell_tail()):
            return False
        self._held = self._held.removeprefix(spell_tail())
        self._arguments = None
        return bool(self._held)


class _Json:
    """Finds the end of a JSON object."""

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = False
        self._escaped = False
        self.is_open = True

    def feed(self, text: str) -> int:
        """How many characters of the text belong to the object."""
        for index, character in enumerate(text):
            if self._quoted:
                if self._escaped:
                    self._escaped = False
                elif character == "\\":
                    self._escaped = True
                elif character == '"':
                    self._quoted = False
            elif character == '"':
                self._quoted = True
            else:
                self._depth += _BRACKETS.get(character, 0)
                if not self._depth:
                    self.is_open = False
                    return index + 1
        return len(text)


def _begin(text: str) -> int:
    """Where a call begins in the text, or could still turn out to."""
    start = text.find(CALL_BEGIN[0])
    while start >= 0 and not (_HEAD.match(text, start) or _may_become_head(text[start:])):
        start = text.find(CALL_BEGIN[0], start + 1)
    return len(text) if start < 0 else start


def _may_become_head(text: str) -> bool:
    """Whether a call's head may begin so."""
    if not text.startswith(_BEFORE_NAME):
        return _BEFORE_NAME.startswith(text)
    _, quote, after = text.removeprefix(_BEFORE_NAME).partition('"')
    return not quote or _AFTER_NAME.startswith(quote + after)

"""The chunks of a stream as the body that they add up to.

Texts are joined, tool calls by their index; what says the same in every chunk is kept once. A stream with
anything else in it, that could be added up in more than one way, is ``Unclear`` and is not stored: no
answer is better than a wrong one.
"""

import json
from collections.abc import Iterable
from typing import Any

_JOINED = frozenset({"content", "text", "reasoning_content", "reasoning", "refusal", "arguments"})
_INDEXED = frozenset({"tool_calls"})
_APPENDED = frozenset(
    {"content", "refusal", "tokens", "token_logprobs", "top_logprobs", "text_offset", "annotations"}
)
_LATEST = frozenset({"usage", "finish_reason"})


class Unclear(Exception):
    """The chunks can't be added up with certainty."""


def assemble(datas: Iterable[bytes]) -> dict[str, Any]:
    """The body of a stream whose messages have these data. Raises Unclear."""
    body: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for data in datas:
        chunk = _parse(data)
        for choice in chunk.pop("choices", None) or ():
            held = choices.setdefault(choice.get("index") or 0, {})
            _merge(held, choice)
        _merge(body, chunk)
    if body.get("object") == "chat.completion.chunk":
        body["object"] = "chat.completion"
    if body.get("usage") is None:
        body.pop("usage", None)
    body["choices"] = [_whole(choices[index]) for index in sorted(choices)]
    return body


def _whole(choice: dict[str, Any]) -> dict[str, Any]:
    delta = choice.pop("delta", None)
    if delta is None:
        return choice
    message = {"role": "assistant", "content": None, **delta}
    for call in message.get("tool_calls") or ():
        call.pop("index", None)
    return {"index": 0, **choice, "message": message}


def _merge(held: dict[str, Any], added: dict[str, Any]) -> None:
    for name, value in added.items():
        old = held.get(name)
        if value is None:
            held.setdefault(name, None)
        elif old is None or name in _LATEST:
            held[name] = _first(name, value)
        elif isinstance(old, str) and isinstance(value, str) and name in _JOINED:
            held[name] = old + value
        elif isinstance(old, dict) and isinstance(value, dict):
            _merge(old, value)
        elif isinstance(old, list) and isinstance(value, list):
            held[name] = _joined(name, old, value)
        elif value and value != old:
            raise Unclear(name)


def _first(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        copy: dict[str, Any] = {}
        _merge(copy, value)
        return copy
    return _numbered(value) if name in _INDEXED else value


def _joined(name: str, old: list[Any], added: list[Any]) -> list[Any]:
    if name in _INDEXED:
        for call in _numbered(added):
            place = next((held for held in old if held["index"] == call["index"]), None)
            if place is None:
                old.append(call)
            else:
                _merge(place, call)
        return old
    if name not in _APPENDED:
        raise Unclear(name)
    return old + added


def _numbered(calls: list[Any]) -> list[Any]:
    """Parts of tool calls, each of which says to which it belongs."""
    if not all(isinstance(call, dict) and isinstance(call.get("index"), int) for call in calls):
        raise Unclear("tool_calls")
    if len({call["index"] for call in calls}) < len(calls):
        raise Unclear("tool_calls")
    return calls


def _parse(data: bytes) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except ValueError as error:
        raise Unclear("a chunk that isn't JSON") from error
    if not isinstance(chunk, dict):
        raise Unclear("a chunk that isn't an object")
    return chunk

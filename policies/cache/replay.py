"""A stored body as the chunks of a stream.

What a message holds goes out in one chunk, after which every choice ends and, where it was asked for, the
usage follows. Split, its text comes in words, for clients that show an answer as it is written.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_WORD = re.compile(r"\s*\S+|\s+$")
_CHAT = "chat.completion"
_TEXTS = ("reasoning_content", "reasoning", "content")
_BODY_ONLY = frozenset({"choices", "usage", "object"})


def chunks(
    body: Mapping[str, Any], *, usage_wanted: bool, split: bool
) -> Iterator[tuple[dict[str, Any], bool]]:
    """The chunks that add up to ``body``, each with whether it is the last one."""
    head = {name: value for name, value in body.items() if name not in _BODY_ONLY}
    is_chat = body.get("object") == _CHAT
    head["object"] = f"{_CHAT}.chunk" if is_chat else "text_completion"
    if usage_wanted:
        head["usage"] = None
    for choice in body["choices"]:
        for part in _parts(choice, is_chat=is_chat, split=split):
            yield {**head, "choices": [part]}, False
    ends = [_end(choice, is_chat=is_chat) for choice in body["choices"]]
    yield {**head, "choices": ends}, not usage_wanted
    if usage_wanted:
        yield {**head, "choices": [], "usage": body.get("usage")}, True


def text_of(chunk: Mapping[str, Any]) -> str:
    """The text that a chunk adds to the first choice."""
    for choice in chunk["choices"]:
        if not choice.get("index"):
            added = choice["delta"].get("content") if "delta" in choice else choice.get("text")
            return added if isinstance(added, str) else ""
    return ""


def _parts(choice: Mapping[str, Any], *, is_chat: bool, split: bool) -> Iterator[dict[str, Any]]:
    rest = {name: value for name, value in choice.items() if name not in {"message", "text", "finish_reason"}}
    rest["finish_reason"] = None
    if not is_chat:
        for text in _words(choice["text"]) if split else (choice["text"],):
            yield {**rest, "text": text}
            rest = {"index": choice.get("index", 0), "finish_reason": None}
        return
    message = dict(choice["message"])
    if message.get("tool_calls"):
        message["tool_calls"] = [{"index": at, **call} for at, call in enumerate(message["tool_calls"])]
    texts = [(name, message.pop(name)) for name in _TEXTS if split and isinstance(message.get(name), str)]
    yield {**rest, "delta": message}
    rest = {"index": choice.get("index", 0), "finish_reason": None}
    for name, text in texts:
        for word in _words(text):
            yield {**rest, "delta": {name: word}}


def _end(choice: Mapping[str, Any], *, is_chat: bool) -> dict[str, Any]:
    empty: dict[str, Any] = {"delta": {}} if is_chat else {"text": ""}
    return {"index": choice.get("index", 0), **empty, "finish_reason": choice["finish_reason"]}


def _words(text: str) -> list[str]:
    return _WORD.findall(text) or [""]

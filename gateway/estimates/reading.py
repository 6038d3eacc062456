"""What of a request's body a model reads, and what it may write.

How a conversation is framed is OpenAI's recipe for counting tokens (openai-cookbook, "How to count
tokens with tiktoken"). Pictures, sound and files are counted by rules of thumb. The body's values were
not checked, so nothing here relies on their types.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from policies.service import Call, Operation

_FRAME = 4
"""Tokens around each message, its role included."""
_PRIMING = 3
"""Tokens with which the answer begins."""
_PICTURE = 765
"""A picture of 1024 by 1024 in high detail, as GPT-4o counts it."""
_SMALL_PICTURE = 85
_SOUND = {"wav": 6400, "mp3": 2100}
"""Base64 characters a token: ten tokens a second."""
_FILE = 40
"""Base64 characters of a document a token."""
_COMPLETION = 16
"""What /v1/completions writes when it isn't told how much."""


class Reading(NamedTuple):
    """``tokens`` are known without counting text, ``media`` those that stand for pictures and the like."""

    texts: list[str]
    tokens: int = 0
    media: int = 0


def read(call: Call) -> Reading:
    """What the model reads."""
    body = call.body
    if call.operation is Operation.CHAT:
        return _chat(body)
    return _inputs(body.get("prompt") if call.operation is Operation.COMPLETION else body.get("input"))


def asked_output(call: Call) -> int | None:
    """The most tokens that the client lets the answer have, of all its choices; None where it doesn't say."""
    if call.operation is Operation.EMBEDDING:
        return 0
    body = call.body
    asked = body.get("max_completion_tokens") or body.get("max_tokens")
    if not isinstance(asked, int):
        if call.operation is Operation.CHAT:
            return None
        asked = _COMPLETION
    return max(0, asked) * choices(call)


def choices(call: Call) -> int:
    """How many answers are written."""
    number = call.body.get("best_of") or call.body.get("n")
    return number if isinstance(number, int) and number > 1 else 1


def _chat(body: Mapping[str, Any]) -> Reading:
    texts: list[str] = []
    messages = body["messages"]
    media = 0
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            texts.append(content)
        elif isinstance(content, list):
            for part in content:
                text = _text(part)
                if text is None:
                    media += _media(part)
                else:
                    texts.append(text)
        if len(message) > 2:  # noqa: PLR2004 - more than its role and content
            texts += _more(message)
    described = (body.get("tools"), body.get("functions"), body.get("response_format"))
    texts += [orjson.dumps(item).decode() for item in described if item]
    return Reading(texts, _FRAME * len(messages) + _PRIMING, media)


def _more(message: Mapping[str, Any]) -> list[str]:
    """A message's name, its reasoning and the tools that it called."""
    said = (message.get("name"), message.get("reasoning_content"), message.get("refusal"))
    called = (message.get("tool_calls"), message.get("function_call"))
    return [
        *(text for text in said if isinstance(text, str)),
        *(orjson.dumps(item).decode() for item in called if item),
    ]


def _text(part: Any) -> str | None:
    """A part's text, where it is one."""
    if isinstance(part, dict):
        part = part.get("text") or part.get("refusal")
    return part if isinstance(part, str) else None


def _media(part: Any) -> int:
    """The tokens that a part stands for which isn't text."""
    if not isinstance(part, dict):
        return 0
    if (picture := part.get("image_url")) is not None:
        small = isinstance(picture, dict) and picture.get("detail") == "low"
        return _SMALL_PICTURE if small else _PICTURE
    if isinstance(sound := part.get("input_audio"), dict):
        return len(str(sound.get("data", ""))) // _SOUND.get(str(sound.get("format")), _SOUND["mp3"])
    if isinstance(file := part.get("file"), dict):
        return len(str(file.get("file_data", ""))) // _FILE
    return 0


def _inputs(given: Any) -> Reading:
    """A text or several, or the ids of one's or several's tokens."""
    if isinstance(given, str):
        return Reading([given])
    if not isinstance(given, list):
        return Reading([])
    texts = [item for item in given if isinstance(item, str)]
    if texts:
        return Reading(texts)
    return Reading([], sum(len(item) if isinstance(item, list) else 1 for item in given))

"""What of a call is compared by meaning: the text of its last turn, with all the rest word for word.

Where words aren't the whole question, or the answer's form is fixed, nothing is compared: tools, JSON mode,
pictures, several choices.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from policies.cache.key import UNKEYED, canonical
from policies.service import Call, Operation

_LONGEST = 2000
"""Characters. Beyond that a vector tells the topic and no longer the question."""

_FORMS = ("tools", "tool_choice", "functions", "function_call", "audio", "logprobs", "prediction")
_TEXT = {"type": "text"}


class Prompt(NamedTuple):
    """``text`` is compared by meaning, with those of the same ``scope`` only: 64 hexadecimal digits."""

    text: str
    scope: str


def prompt_of(call: Call, *, scope: str, space: str) -> Prompt | None:
    """What to compare, None for a call that must be answered by itself. The rest is as in ``fingerprint``."""
    body = call.body
    if call.operation is not Operation.CHAT or not _is_plain(body):
        return None
    messages = body.get("messages")
    if not isinstance(messages, Sequence) or not messages:
        return None
    *before, last = messages
    if not isinstance(last, Mapping) or last.get("role") != "user" or any(map(_is_rich, before)):
        return None
    text = _text_of(last.get("content"))
    if text is None or not text.strip() or len(text) > _LONGEST:
        return None
    rest = {name: value for name, value in body.items() if name not in UNKEYED}
    rest["messages"] = [*before, {**last, "content": None}]
    return Prompt(text, sha256(canonical([scope, space, rest])).hexdigest())


def _is_plain(body: Mapping[str, Any]) -> bool:
    form = body.get("response_format")
    fixed = form is not None and form != _TEXT
    choices = body.get("n")
    spoken = body.get("modalities") not in (None, ["text"])
    return not (fixed or spoken or choices not in {None, 1} or any(body.get(name) for name in _FORMS))


def _is_rich(message: Any) -> bool:
    """Whether an earlier turn holds more than text."""
    return (
        not isinstance(message, Mapping)
        or bool(message.get("tool_calls"))
        or message.get("role") in {"tool", "function"}
        or (message.get("content") is not None and _text_of(message["content"]) is None)
    )


def _text_of(content: Any) -> str | None:
    """A message's text, None where it has other parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return None
    texts = [
        part["text"]
        for part in content
        if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)
    ]
    return "\n".join(texts) if len(texts) == len(content) else None

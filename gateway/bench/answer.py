"""Reads a streamed chat completion: when its tokens came, and whether it came to its end."""

from typing import Any

import orjson

from gateway.wire.sse import DONE

TRUNCATED = "truncated stream"
MALFORMED = "malformed chunk"
_TEXTS = ("content", "reasoning_content", "reasoning", "tool_calls", "refusal")


class Answer:
    """One stream, fed message by message."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.last: float | None = None
        self.longest_gap: float | None = None
        self.prompt_tokens = 0
        self._chunks = 0
        self._counted: int | None = None
        self._finished = False
        self._fault = ""

    @property
    def output_tokens(self) -> int:
        """As the server counts them; if it doesn't tell, the chunks that had text."""
        return self._chunks if self._counted is None else self._counted

    @property
    def fault(self) -> str:
        """Why this isn't a whole answer; empty if it is."""
        return self._fault or ("" if self._finished else TRUNCATED)

    def take(self, message: bytes, now: float) -> None:
        """One message of the stream, which came ``now``."""
        if message == DONE:
            return
        try:
            chunk = orjson.loads(message)
            if error := chunk.get("error"):
                self._fault = f"error in stream: {error_name(error)}"
                return
            choices = chunk.get("choices") or []
            texts = [choice["delta"] for choice in choices if _has_text(choice.get("delta") or {})]
            finished = any(choice.get("finish_reason") for choice in choices)
            usage = chunk.get("usage") or {}
            counted, prompt = usage.get("completion_tokens"), usage.get("prompt_tokens")
        except (ValueError, TypeError, AttributeError):
            self._fault = MALFORMED
            return
        self._finished = self._finished or finished
        if texts:
            self._token(now)
        if isinstance(counted, int):
            self._counted = counted
        if isinstance(prompt, int):
            self.prompt_tokens = prompt

    def _token(self, now: float) -> None:
        self._chunks += 1
        if self.first is None or self.last is None:
            self.first = now
        else:
            self.longest_gap = max(self.longest_gap or 0.0, now - self.last)
        self.last = now


def error_name(error: Any) -> str:
    """The short name of an error in OpenAI's form."""
    if not isinstance(error, dict):
        return "unnamed"
    return str(error.get("code") or error.get("type") or "unnamed")


def _has_text(delta: dict[str, Any]) -> bool:
    return any(delta.get(name) for name in _TEXTS)

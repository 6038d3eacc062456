"""Requests to the gateway and its streams as a client reads them."""

import json
import uuid
from collections.abc import Iterable
from typing import Any

PROMPT = "Tell nobody but me of the tide at Saint-Malo."
CHAT = "/v1/chat/completions"


def chat(model: str, *, stream: bool = False, **more: Any) -> dict[str, Any]:
    """The body of a chat whose upstream behaves as ``model`` says."""
    messages = [{"role": "user", "content": PROMPT}]
    return {"model": f"fake/{model}", "messages": messages, "stream": stream, **more}


def new_id() -> str:
    """A request id by which the upstream's record is searched."""
    return f"test-{uuid.uuid4().hex}"


def messages_of(text: str) -> list[str]:
    """The data of each message of a stream."""
    return [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]


def comments_of(text: str) -> list[str]:
    """The comments of a stream."""
    return [line for line in text.split("\n") if line.startswith(":")]


def text_of(messages: Iterable[str]) -> str:
    """The text of the first choice."""
    chunks = [json.loads(message) for message in messages if message != "[DONE]"]
    first = [choice for chunk in chunks for choice in chunk.get("choices", []) if choice["index"] == 0]
    return "".join(choice["delta"].get("content") or "" for choice in first)


def error_of(message: str) -> dict[str, Any]:
    """The error object of a message or body."""
    error: dict[str, Any] = json.loads(message)["error"]
    return error

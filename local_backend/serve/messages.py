"""A conversation as OpenAI's API has it, and as the model's chat template takes it."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from local_backend.serve.tools import Tool, ToolCall, describe

Turn = dict[str, str]
"""A role and its content."""


class TextPart(BaseModel):
    """A part of a message; only text can be understood by a text model."""

    type: Literal["text"]
    text: str


class RefusalPart(BaseModel):
    """What an assistant said instead of an answer."""

    type: Literal["refusal"]
    refusal: str


Part = Annotated[TextPart | RefusalPart, Field(discriminator="type")]


class Message(BaseModel):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    tool_calls: list[ToolCall] | None = None

    @property
    def text(self) -> str:
        """The content without its parts' bounds."""
        if isinstance(self.content, list):
            return "".join(part.text if isinstance(part, TextPart) else part.refusal for part in self.content)
        return self.content or ""

    @property
    def is_beginning(self) -> bool:
        """Whether the answer is to go on from it, were it the last."""
        return self.role == "assistant" and not self.tool_calls

    def rendered(self) -> Turn:
        """The turn as templates know it; `developer` is the newer name of `system`."""
        if self.role in {"tool", "function"}:
            return {"role": "user", "content": f"<tool_response>\n{self.text}\n</tool_response>"}
        calls = "".join(call.rendered() for call in self.tool_calls or [])
        return {"role": "system" if self.role == "developer" else self.role, "content": self.text + calls}


def render(messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[list[Turn], str]:
    """The turns before the answer, and the beginning that the answer goes on from, usually empty."""
    begun = ""
    if messages[-1].is_beginning:
        *messages, last = messages
        begun = last.text
    turns = [message.rendered() for message in messages]
    if not tools:
        return turns, begun
    if turns and turns[0]["role"] == "system":
        turns[0]["content"] += "\n\n" + describe(tools)
    else:
        turns.insert(0, {"role": "system", "content": describe(tools)})
    return turns, begun

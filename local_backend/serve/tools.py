"""Tools as OpenAI's API describes them, and how the model is told of them.

The wording is that of the Hermes and Qwen models, which many others have learnt from; it goes into the system
message, as the templates of small models have no place for tools.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator

CALL_BEGIN = "<tool_call>"
CALL_END = "</tool_call>"
_Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class Function(BaseModel):
    """A function that the model may call; `parameters` is the JSON schema of its arguments."""

    name: _Name
    description: str | None = None
    parameters: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}

    @field_validator("parameters")
    @classmethod
    def _of_an_object(cls, value: dict[str, Any]) -> dict[str, Any]:
        if value.get("type", "object") != "object":
            raise ValueError("parameters must be the schema of an object")
        return {**value, "type": "object"}


class Tool(BaseModel):
    """Functions are the only tools that there are."""

    type: Literal["function"]
    function: Function


class FunctionName(BaseModel):
    """A function that was described among the tools."""

    name: _Name


class NamedTool(BaseModel):
    """The one tool that must be called."""

    type: Literal["function"]
    function: FunctionName


ToolChoice = Literal["none", "auto", "required"] | NamedTool


class FunctionCall(BaseModel):
    """A function and its arguments as JSON text, right or not: the model wrote it."""

    name: str
    arguments: str


class ToolCall(BaseModel):
    """A call that the assistant made earlier in the conversation."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall

    def rendered(self) -> str:
        """The call as the model wrote it."""
        return spell_head(self.function.name) + self.function.arguments + spell_tail()


def spell_head(name: str) -> str:
    """What precedes the arguments in a call."""
    return f'{CALL_BEGIN}{{"name": {json.dumps(name)}, "arguments": '


def spell_tail() -> str:
    """What follows them."""
    return "}" + CALL_END


def describe(tools: Sequence[Tool]) -> str:
    """What the system message says of the tools."""
    signatures = "\n".join(json.dumps(_signature(tool.function)) for tool in tools)
    return (
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n"
        f"<tools>\n{signatures}\n</tools>\n\n"
        "For each function call, return a json object with function name and arguments within "
        f"{CALL_BEGIN}{CALL_END} XML tags:\n"
        f'{CALL_BEGIN}{{"name": <function-name>, "arguments": <args-json-object>}}{CALL_END}'
    )


def _signature(function: Function) -> Mapping[str, Any]:
    return {"type": "function", "function": function.model_dump(exclude_none=True)}

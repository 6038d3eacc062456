"""The requests of OpenAI's API that this server understands; parameters it does not know are ignored."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from local_backend.serve.messages import Message
from local_backend.serve.tools import NamedTool, Tool, ToolChoice

MAX_CHOICES = 16
MAX_STOPS = 16
MAX_TOOLS = 128
_TokenId = Annotated[int, Field(ge=0)]
_TokenIds = Annotated[list[_TokenId], Field(min_length=1)]
Texts = (
    str
    | Annotated[list[str], Field(min_length=1)]
    | _TokenIds
    | Annotated[list[_TokenIds], Field(min_length=1)]
)


def listed(texts: Texts) -> Sequence[str | list[int]]:
    """A text or texts as a list, each a string or token ids."""
    if isinstance(texts, str):
        return [texts]
    if isinstance(texts[0], int):
        return [texts]
    return texts


class _Options(BaseModel):
    """What both endpoints share. None means the default of the model or the server."""

    model_config = ConfigDict(extra="ignore")

    model: str
    stream: bool = False
    stream_options: "StreamOptions | None" = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    seed: int | None = None
    logit_bias: dict[_TokenId, Annotated[float, Field(ge=-100, le=100)]] | None = None
    stop: Annotated[list[str], Field(max_length=MAX_STOPS)] | None = None
    guided_regex: str | None = None
    guided_json: dict[str, Any] | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, body: Any) -> Any:
        """OpenAI's API takes null for a parameter that is not given."""
        if not isinstance(body, dict):
            return body
        return {name: value for name, value in body.items() if value is not None}


class StreamOptions(BaseModel):
    """include_usage adds a last chunk with the usage of the whole request."""

    include_usage: bool = False


class TextFormat(BaseModel):
    """Free text, or any JSON object."""

    type: Literal["text", "json_object"] = "text"

    @property
    def schema_of_answer(self) -> dict[str, Any] | None:
        """What the answer must be, if it must be something."""
        return {"type": "object"} if self.type == "json_object" else None


class JsonSchema(BaseModel):
    """A named JSON schema; answers always keep to it, `strict` or not."""

    name: str
    definition: Annotated[dict[str, Any], Field(alias="schema")]


class JsonSchemaFormat(BaseModel):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    json_schema: JsonSchema

    @property
    def schema_of_answer(self) -> dict[str, Any]:
        """What the answer must be."""
        return self.json_schema.definition


ResponseFormat = Annotated[TextFormat | JsonSchemaFormat, Field(discriminator="type")]


class ChatRequest(_Options):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat = TextFormat()
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool = True
    functions: Any = None
    function_call: Any = None

    @model_validator(mode="after")
    def _parameters_fit_together(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs to be true")
        if self.functions is not None or self.function_call is not None:
            raise ValueError("functions and function_call are not served; use tools and tool_choice")
        names = [tool.function.name for tool in self.tools or []]
        if len(set(names)) < len(names):
            raise ValueError("two tools have the same name")
        named = self.tool_choice.function.name if isinstance(self.tool_choice, NamedTool) else None
        if named not in (None, *names) or (self.tool_choice == "required" and not names):
            raise ValueError(f"tool_choice asks for {named or 'a tool'}, which is not among tools")
        return self

    @property
    def callable_tools(self) -> list[Tool]:
        """The tools that the answer may call."""
        if self.tool_choice == "none":
            return []
        tools = self.tools or []
        if isinstance(self.tool_choice, NamedTool):
            return [tool for tool in tools if tool.function.name == self.tool_choice.function.name]
        return tools


class CompletionRequest(_Options):
    """POST /v1/completions."""

    prompt: Texts
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool = False
    best_of: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    suffix: str | None = None

    @model_validator(mode="after")
    def _parameters_fit_together(self) -> "CompletionRequest":
        if self.suffix:
            raise ValueError("suffix is not served: the model writes only what follows a prompt")
        if self.echo and self.logprobs is not None:
            raise ValueError("echo is not served with logprobs, which the prompt's tokens have not")
        if self.best_of is not None and (self.best_of < self.n or self.stream):
            raise ValueError("best_of must be at least n, and is not served with stream")
        return self

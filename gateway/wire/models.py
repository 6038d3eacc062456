"""Request envelopes: what the gateway checks of a body before it passes the body on untouched.

Types are checked, values are not: what a temperature may be is the upstream's business. Fields that
are not named here pass through unseen.
"""

from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import TypedDict

from policies.errors import InvalidRequest
from policies.service import Operation

_SAFE_DEPTH = 250
"""A body with no more brackets than this can't be nested too deep for orjson, which writes 254 levels."""


class StreamOptions(BaseModel):
    """Options of a stream."""

    model_config = ConfigDict(extra="allow", strict=True)

    include_usage: bool | None = Field(None, description="Send a last chunk with the call's token counts.")


class Message(TypedDict):
    """One message of a conversation."""

    __pydantic_config__ = ConfigDict(extra="allow", strict=True)  # type: ignore[misc]

    role: str


class _Envelope(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    model: Annotated[str, Field(min_length=1, max_length=512, description="A model of GET /v1/models.")]
    user: str | None = None


class _Generation(_Envelope):
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[str, float] | None = None


class ChatRequest(_Generation):
    """Body of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class CompletionRequest(_Generation):
    """Body of POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]]
    suffix: str | None = None
    echo: bool | None = None
    best_of: int | None = None
    logprobs: int | None = None


class EmbeddingRequest(_Envelope):
    """Body of POST /v1/embeddings."""

    input: str | list[str] | list[int] | list[list[int]]
    dimensions: int | None = None
    encoding_format: str | None = None


ENVELOPES: dict[Operation, type[_Envelope]] = {
    Operation.CHAT: ChatRequest,
    Operation.COMPLETION: CompletionRequest,
    Operation.EMBEDDING: EmbeddingRequest,
}


def parse(operation: Operation, body: bytes) -> dict[str, Any]:
    """Return the body as a JSON object whose envelope is sound. Raises ``InvalidRequest``."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        detail = f"{error.msg} (line {error.lineno}, column {error.colno})"
        raise InvalidRequest(f"The body isn't valid JSON: {detail}.", code="invalid_json") from None
    if not isinstance(request, dict):
        raise InvalidRequest("The body must be a JSON object.", code="invalid_type")
    if body.count(b"[") + body.count(b"{") > _SAFE_DEPTH and not _can_be_written(request):
        raise InvalidRequest("The body is nested too deep.", code="invalid_value")
    try:
        ENVELOPES[operation].model_validate(request)
    except ValidationError as error:
        raise _invalid(error) from None
    return request


def _can_be_written(request: dict[str, Any]) -> bool:
    """Whether the body can be passed on: what is written may be nested less deep than what is read."""
    try:
        orjson.dumps(request)
    except orjson.JSONEncodeError:
        return False
    return True


def _invalid(error: ValidationError) -> InvalidRequest:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = ".".join(str(part) for part in first["loc"] if not _is_union_branch(part))
    if first["type"] == "missing":
        return InvalidRequest(
            f"Missing required parameter: '{field}'.", param=field, code="missing_required_parameter"
        )
    return InvalidRequest(f"Invalid value for '{field}': {first['msg']}.", param=field, code="invalid_value")


def _is_union_branch(part: str | int) -> bool:
    return isinstance(part, str) and (part == "str" or "[" in part)

"""OpenAI's bodies and chunks, read for what the gateway needs to know of them."""

from typing import Any

from policies.service import Event, Usage

_DELTA_CONTENT = (
    "content",
    "reasoning_content",
    "reasoning",
    "tool_calls",
    "refusal",
    "function_call",
    "audio",
)


def read_usage(body: dict[str, Any]) -> Usage | None:
    """The token counts of a body or chunk, None where it has none."""
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return None
    prompt = usage.get("prompt_tokens_details") or {}
    completion = usage.get("completion_tokens_details") or {}
    return Usage(
        input=usage.get("prompt_tokens") or 0,
        output=usage.get("completion_tokens") or 0,
        cached_input=prompt.get("cached_tokens") or usage.get("prompt_cache_hit_tokens") or 0,
        reasoning=completion.get("reasoning_tokens") or 0,
    )


def read_chunk(data: bytes, chunk: dict[str, Any]) -> Event:
    """Describe one chunk of a stream; ``data`` is its JSON text, passed on as it came."""
    text = ""
    content = False
    finish_reason: str | None = None
    choices = chunk.get("choices") or ()
    for choice in choices:
        added = choice.get("text")
        delta = choice.get("delta")
        if delta:
            added = delta.get("content")
            content = content or any(delta.get(field) for field in _DELTA_CONTENT)
        if added:
            content = True
            if not choice.get("index"):
                text = added
        finish_reason = choice.get("finish_reason") or finish_reason
    usage = read_usage(chunk) if chunk.get("usage") else None
    return Event(data, content, text, finish_reason, usage)

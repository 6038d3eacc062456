"""OpenAI's bodies and chunks, read for what the gateway needs to know of them."""

from typing import Any

from policies.service import Event, Usage

_DELTA_CONTENT = (
    "reasoning_content",
    "reasoning",
    "tool_calls",
    "refusal",
    "function_call",
    "audio",
)

_MOST_COST = 1e6
"""Dollars: whatever costs more than that is no cost."""

_COUNTERS = frozenset({"nvml", "rapl"})
"""Where the bundled model server's joules come from when they are measured."""

_MOST_JOULES = 1e9
_MOST_FLOPS = 1e24
"""No answer takes as much."""


def read_usage(body: dict[str, Any]) -> Usage | None:
    """The token counts of a body or chunk, None where it has none."""
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return None
    prompt = usage.get("prompt_tokens_details")
    completion = usage.get("completion_tokens_details")
    joules, measured = _energy(usage.get("energy"))
    return Usage(
        input=_count(usage, "prompt_tokens"),
        output=_count(usage, "completion_tokens"),
        cached_input=_count(prompt, "cached_tokens") or _count(usage, "prompt_cache_hit_tokens"),
        reasoning=_count(completion, "reasoning_tokens"),
        cost=_amount(usage, "cost", _MOST_COST),
        joules=joules,
        measured=measured,
        flops=_amount(usage, "flops", _MOST_FLOPS),
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
            if not added and not content:
                content = any(delta.get(field) for field in _DELTA_CONTENT)
        if added:
            content = True
            if not choice.get("index") and isinstance(added, str):
                text = added
        finish_reason = choice.get("finish_reason") or finish_reason
    usage = read_usage(chunk) if chunk.get("usage") else None
    return Event(data, content, text, finish_reason, usage)


def _count(counts: object, name: str) -> int:
    """A token count, 0 where there is none: what an upstream sends in its place must break no answer."""
    value = counts.get(name) if isinstance(counts, dict) else None
    return int(value) if isinstance(value, int | float) and value > 0 else 0


def _energy(told: object) -> tuple[float | None, bool]:
    """Joules, and whether a counter measured them."""
    joules = _amount(told, "joules", _MOST_JOULES)
    return joules, joules is not None and isinstance(told, dict) and told.get("source") in _COUNTERS


def _amount(amounts: object, name: str, most: float) -> float | None:
    """An amount below ``most``, None where there is none."""
    value = amounts.get(name) if isinstance(amounts, dict) else None
    return float(value) if isinstance(value, int | float) and 0 <= value < most else None

"""The forms that an answer can be asked for in, as llguidance's grammars."""

import json
from collections.abc import Mapping
from typing import Any

from llguidance import LLMatcher

# Free whitespace is where small models wander off without end.
_LAYOUT = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}


def json_schema(schema: Mapping[str, Any]) -> str:
    """JSON that a schema describes, on one line."""
    return LLMatcher.grammar_from_json_schema({**schema, "x-guidance": _LAYOUT})


def regex(pattern: str) -> str:
    """Text that a regular expression (of Rust's regex crate, without anchors) matches as a whole."""
    return LLMatcher.grammar_from_regex(pattern)


def tool_calls(tools: Mapping[str, Mapping[str, Any]], *, required: bool, parallel: bool) -> str:
    """Calls of tools, each a name with its parameters' schema; with text before them unless required."""
    bodies = " | ".join(_body(name, parameters) for name, parameters in tools.items())
    call = f"call: open ({bodies})"
    if required:
        start = "call call*" if parallel else "call"
        return "\n".join([f"start: {start}", call, 'open: "<tool_call>"'])
    start = "call* TEXT" if parallel else "call | TEXT"
    return "\n".join([f"start: {start}", call, 'open[lazy]: TEXT "<tool_call>"', r"TEXT: /(.|\n)*/"])


def _body(name: str, parameters: Mapping[str, Any]) -> str:
    schema = json.dumps({**parameters, "x-guidance": _LAYOUT})
    head = json.dumps(f'{{"name": {json.dumps(name)}, "arguments": ')
    return f'{head} %json {schema} "}}</tool_call>"'

"""The forms that a request can ask its answer to have, as llguidance's grammars.

Parameters are OpenAI's, and vLLM's `guided_regex` and `guided_json` for what OpenAI's API has no words for.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llguidance import LLMatcher

from local_backend.serve import errors
from local_backend.serve.schema import ChatRequest, CompletionRequest
from local_backend.serve.tools import CALL_BEGIN, NamedTool, spell_head, spell_tail

# Free whitespace is where small models wander off without end.
_LAYOUT = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
_CLASS = re.compile(r"\\.", re.DOTALL)
_ASCII = {r"\d": "[0-9]", r"\D": "[^0-9]", r"\w": "[0-9A-Za-z_]", r"\W": "[^0-9A-Za-z_]"}


@dataclass(frozen=True)
class Form:
    """A grammar, and the parameter that asked for it."""

    grammar: str
    param: str


def wanted(request: ChatRequest | CompletionRequest) -> Form | None:
    """The form that a request asks for, None for free text. Raises ApiError when it asks for several."""
    forms = []
    if request.guided_regex is not None:
        forms.append(Form(regex(request.guided_regex), "guided_regex"))
    if request.guided_json is not None:
        forms.append(Form(json_schema(request.guided_json), "guided_json"))
    if isinstance(request, ChatRequest):
        if (schema := request.response_format.schema_of_answer) is not None:
            forms.append(Form(json_schema(schema), "response_format"))
        if request.callable_tools:
            forms.append(Form(_chosen_calls(request), "tools"))
    if len(forms) > 1:
        names = " and ".join(form.param for form in forms)
        raise errors.invalid_request(f"an answer has one form, and {names} ask for one each", forms[1].param)
    return forms[0] if forms else None


def _chosen_calls(request: ChatRequest) -> str:
    tools = {tool.function.name: tool.function.parameters for tool in request.callable_tools}
    is_named = isinstance(request.tool_choice, NamedTool)
    required = is_named or request.tool_choice == "required"
    return tool_calls(tools, required=required, parallel=request.parallel_tool_calls and not is_named)


def json_schema(schema: Mapping[str, Any]) -> str:
    """JSON that a schema describes, on one line."""
    return LLMatcher.grammar_from_json_schema({**schema, "x-guidance": _LAYOUT})


def regex(pattern: str) -> str:
    """Text that a regular expression (of Rust's regex crate, without anchors) matches as a whole.

    Digits and words are ASCII's, as in a schema's `pattern` and where vLLM compiles it: left to all of
    Unicode, a small model finds digits that nobody can read.
    """
    return LLMatcher.grammar_from_regex(_CLASS.sub(lambda found: _ASCII.get(found[0], found[0]), pattern))


def beginning(text: str) -> str:
    """Any text that begins with this one."""
    return "\n".join([f"start: {json.dumps(text)} TEXT", r"TEXT: /(.|\n)*/"])


def tool_calls(tools: Mapping[str, Mapping[str, Any]], *, required: bool, parallel: bool) -> str:
    """Calls of tools, each a name with its parameters' schema; with text before them unless required."""
    bodies = " | ".join(_body(name, parameters) for name, parameters in tools.items())
    call = f"call: open ({bodies})"
    if required:
        start = "call call*" if parallel else "call"
        return "\n".join([f"start: {start}", call, f'open: "{CALL_BEGIN}"'])
    start = "call* TEXT" if parallel else "call | TEXT"
    return "\n".join([f"start: {start}", call, f'open[lazy]: TEXT "{CALL_BEGIN}"', r"TEXT: /(.|\n)*/"])


def _body(name: str, parameters: Mapping[str, Any]) -> str:
    schema = json.dumps({**parameters, "x-guidance": _LAYOUT})
    head = json.dumps(spell_head(name).removeprefix(CALL_BEGIN))
    return f"{head} %json {schema} {json.dumps(spell_tail())}"

"""Turn pydantic's errors into problems: a line of the file, a key path, and words without jargon."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.settings.problems import FAULTS, KeyPath, Problem, dotted, nearest
from gateway.settings.source import Source

_MESSAGES = {
    "missing": "missing",
    "extra_forbidden": "unknown key",
    "string_type": "must be text; put it in quotes",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "literal_error": "must be {expected}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "mapping_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "value_error": "{error}",
}
_QUOTED = re.compile(r"'([^']*)'")


def explain(error: ValidationError, root: type[BaseModel], source: Source) -> Iterator[Problem]:
    """Yield the problems behind a failed validation of `source` against `root`."""
    details = error.errors(include_url=False)
    echoes = {at for detail in details for at in _echoes(detail, root)}
    for detail in details:
        if (detail["type"], detail["loc"]) in echoes:
            continue
        context = detail.get("ctx", {})
        if FAULTS in context:
            for fault in context[FAULTS]:
                whole = (*detail["loc"], *fault.at)
                path = _written(whole, source, keep_last=isinstance(whole[-1], str))
                yield Problem(source.line(path), dotted(path), fault.message, fault.suggestion)
        else:
            path = _written(detail["loc"], source, keep_last=detail["type"] in {"missing", "extra_forbidden"})
            yield Problem(
                source.line(path), dotted(path), _message(detail, context), _suggestion(detail, root)
            )


def _echoes(detail: ErrorDetails, root: type[BaseModel]) -> Iterator[tuple[str, KeyPath]]:
    """Yield the errors that this one brings about: they would only send the reader the wrong way.

    A misspelt key leaves the right one missing; a list counts only its good items when it says it is empty.
    """
    meant = _suggestion(detail, root) if detail["type"] == "extra_forbidden" else None
    if meant is not None:
        yield "missing", (*detail["loc"][:-1], meant)
    for end in range(len(detail["loc"])):
        yield "too_short", detail["loc"][:end]


def _written(loc: KeyPath, source: Source, *, keep_last: bool) -> KeyPath:
    """Return `loc` less the parts that pydantic added: tags of unions, list items of an unwrapped value."""
    path: KeyPath = ()
    for at, part in enumerate(loc):
        if (*path, part) in source.lines or (keep_last and at == len(loc) - 1):
            path = (*path, part)
    return path


def _message(detail: ErrorDetails, context: Mapping[str, Any]) -> str:
    template = _MESSAGES.get(detail["type"])
    return detail["msg"] if template is None else template.format(**context)


def _suggestion(detail: ErrorDetails, root: type[BaseModel]) -> str | None:
    if detail["type"] == "extra_forbidden":
        return nearest(detail["loc"][-1], _keys_at(detail["loc"][:-1], root))
    if detail["type"] == "literal_error":
        options = _QUOTED.findall(detail["ctx"]["expected"])
        return nearest(detail["input"], options) if len(options) > 1 else None
    return None


def _keys_at(loc: KeyPath, root: type[BaseModel]) -> Iterable[str]:
    """Return the keys that are known at a place of the schema."""
    here = [root]
    for part in loc:
        tagged = [section for section in here if section.__name__ == part]
        below = [
            found
            for section in here
            if part in section.model_fields
            for found in _sections(section.model_fields[str(part)].annotation)
        ]
        here = tagged or below or here
    return [key for section in here for key in section.model_fields]


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections(argument)

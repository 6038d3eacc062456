"""Read YAML into plain data that remembers its lines.

PyYAML's own constructors forget where a value came from, let a second key silently win and read `off` as
false. Here a document is composed to nodes and converted by hand: keys are text, a repeated key is a
problem, words are text except `true`, `false` and `null` (YAML 1.2), and every key path has its line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from gateway.settings.env import BadReference, expand
from gateway.settings.problems import KeyPath, Problem, dotted

_NAME = re.compile(r" '(?!<)[^']{4,}'")  # a name from the file, which may be a secret in the wrong place
_TAG = "tag:yaml.org,2002:"
_COLLECTIONS = {f"{_TAG}map", f"{_TAG}seq"}
_SCALARS: dict[str, Callable[[str], Any]] = {
    f"{_TAG}str": str,
    f"{_TAG}int": int,
    f"{_TAG}float": float,
    f"{_TAG}bool": lambda text: text.lower() == "true",
    f"{_TAG}null": lambda _: None,
}


class _Loader(yaml.SafeLoader):
    """SafeLoader with the words and numbers of YAML 1.2; `off`, `12:30` and `2024-01-01` stay text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML fills it by class


for _name, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("int", r"[-+]?[0-9]{1,18}", "-+0123456789"),
    ("float", r"[-+]?[0-9]+\.[0-9]+(?:[eE][-+]?[0-9]+)?", "-+0123456789"),
):
    _starts: list[str] = [*_first, *([""] if _name == "null" else [])]
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(rf"^(?:{_pattern})$"), _starts)


@dataclass(slots=True)
class Source:
    """A document as plain data, the 1-based line of every key path, and what is wrong with its text."""

    data: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: dict[KeyPath, Problem] = field(default_factory=dict)

    def line(self, path: KeyPath) -> int:
        """Return the line of the path, or of the nearest thing around it that was written down."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read(text: str, environ: Mapping[str, str]) -> Source:
    """Parse `text` and expand its references to the environment; problems are collected, not raised."""
    source = Source()
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        source.problems[()] = Problem(line, "", "has a character that YAML does not allow")
    except yaml.MarkedYAMLError as error:
        source.problems[()] = _syntax(error)
    else:
        if node is not None:
            source.data = _Reading(source, environ).value(node, ())
    return source


def _syntax(error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    line = None if mark is None else mark.line + 1
    said = f"{error.context or ''} {error.problem or ''}"
    if "alias" in said:
        return Problem(line, "", "not valid YAML: put text that begins with '*' in quotes")
    return Problem(line, "", f"not valid YAML: {_NAME.sub('', error.problem or said).removeprefix('but ')}")


class _Reading:
    """One pass over the nodes of one document."""

    def __init__(self, source: Source, environ: Mapping[str, str]) -> None:
        self._source = source
        self._environ = environ
        self._open: set[int] = set()

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._source.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if node.tag not in _COLLECTIONS:
            return self._complain(path, "YAML tags are not supported")
        if id(node) in self._open:
            return self._complain(path, "an alias cannot contain itself")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._source.problems[path] = Problem(line, dotted(path), "a key must be plain text")
                continue
            below = (*path, key.value)
            if key.value in data:
                first = self._source.lines[below]
                message = f"given twice, first on line {first}"
                self._source.problems[below] = Problem(line, dotted(below), message)
                continue
            self._source.lines[below] = line
            data[key.value] = self.value(value, below)
        return data

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        convert = _SCALARS.get(node.tag)
        if convert is None:
            return self._complain(path, "YAML tags are not supported")
        try:
            expanded = expand(node.value, self._environ)
        except BadReference as error:
            return self._complain(path, str(error))
        try:
            return convert(expanded)
        except ValueError:
            return self._complain(path, "does not fit its YAML tag")

    def _complain(self, path: KeyPath, message: str) -> str:
        self._source.problems[path] = Problem(self._source.line(path), dotted(path), message)
        return ""

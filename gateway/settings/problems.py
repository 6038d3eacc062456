"""What is wrong with a configuration, said so that its author can mend it.

A fault is found deep inside validation, where only the position below the validated value is known; a
problem has the file's line and the whole key path. Pydantic carries the former, `load` makes the latter.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic_core import PydanticCustomError

KeyPath = tuple[str | int, ...]

FAULTS = "faults"
_PLAIN_PART = re.compile(r"[\w*?/-]+")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend: where (1-based line, None when no line is to blame), what, and a likely cure.

    No value from the file is part of it where that value may be a secret.
    """

    line: int | None
    path: str
    message: str
    suggestion: str | None = None

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}" if self.path else self.message
        return f"{text}; did you mean '{self.suggestion}'?" if self.suggestion else text


class ConfigError(Exception):
    """A configuration cannot be used. `problems` lists everything that is wrong, in the file's order."""

    def __init__(self, problems: Sequence[Problem], file: str = "tidegate.yaml") -> None:
        super().__init__(problems, file)
        self.problems = list(problems)
        self.file = file

    def __str__(self) -> str:
        return "\n".join(f"{self._place(problem)}: {problem}" for problem in self.problems)

    def _place(self, problem: Problem) -> str:
        return self.file if problem.line is None else f"{self.file}:{problem.line}"


@dataclass(frozen=True, slots=True)
class Fault:
    """A problem seen from a validator: `at` is the position below the value being validated."""

    message: str
    suggestion: str | None = None
    at: KeyPath = ()


def faulty(faults: Sequence[Fault]) -> PydanticCustomError:
    """Wrap faults into the one error that a validator may raise; `explain` unwraps them again."""
    said = "; ".join(fault.message for fault in faults)
    return PydanticCustomError(FAULTS, "{said}", {"said": said, FAULTS: tuple(faults)})


def nearest(word: object, known: Iterable[str]) -> str | None:
    """Return the known name that a misspelt one most likely stands for, None when nothing is close."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return close[0] if close else None


def dotted(path: KeyPath) -> str:
    """Write a key path for people: `models.deepseek-chat.route[0]`, with odd names in quotes."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _PLAIN_PART.fullmatch(part) else json.dumps(part, ensure_ascii=False)
            text += f".{name}" if text else name
    return text

"""Tables whose keys are models' names or globs."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

T = TypeVar("T")


def by_name(model: str, *tables: Mapping[str, T]) -> T | None:
    """What the first table that knows the model has for it; an exact name goes before a glob."""
    for table in tables:
        if model in table:
            return table[model]
        for pattern, value in table.items():
            if fnmatchcase(model, pattern):
                return value
    return None

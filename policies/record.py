"""Records: data classes that nobody changes, seen to by the type checker and not as each is made.

``dataclass(frozen=True)`` guards every field against being set while its own ``__init__`` sets them, and so
takes eight times as long to make one. A call makes half a dozen of them.
"""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[_T]) -> type[_T]:
    """Make a data class with slots of it, which can be compared and hashed, and isn't to be changed."""
    return dataclass(slots=True, unsafe_hash=True)(cls)

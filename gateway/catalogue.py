"""The models that clients may ask for, by name and by glob."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from policies.errors import ModelNotFound
from policies.service import Service

_GLOB = frozenset("*?[")
_REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One configured model: its name or glob, what serves it, and how long a call may take in seconds."""

    name: str
    service: Service
    total_timeout: float

    @property
    def is_glob(self) -> bool:
        """Whether ``name`` stands for many names."""
        return not _GLOB.isdisjoint(self.name)


class Catalogue:
    """All entries. A plain name comes before any glob; among globs the first configured one wins."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._by_name: dict[str, Entry] = {}
        self._globs: list[Entry] = []
        for entry in entries:
            if entry.is_glob:
                self._globs.append(entry)
            else:
                self._by_name[entry.name] = entry
        self._match = lru_cache(maxsize=_REMEMBERED)(self._match_glob)

    def find(self, model: str) -> Entry | None:
        """The entry that a model's name leads to."""
        return self._by_name.get(model) or self._match(model)

    def names(self) -> list[str]:
        """The plain names, as configured; what a glob stands for is only known upstream."""
        return list(self._by_name)

    def _match_glob(self, model: str) -> Entry | None:
        return next((entry for entry in self._globs if fnmatchcase(model, entry.name)), None)


def model_not_found(model: str) -> ModelNotFound:
    """The error for a name that leads nowhere, or that the key may not use."""
    return ModelNotFound(
        f"The model '{model}' does not exist or this key may not use it. GET /v1/models lists those it may.",
        param="model",
    )

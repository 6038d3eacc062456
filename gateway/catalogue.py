"""The models that clients may ask for, by name and by glob."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from policies.errors import ModelNotFound
from policies.service import Service

_GLOB = frozenset("*?[")
_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Entry:
    """What serves one model; ``name`` is the configured name or glob that it was found under.

    ``cached`` tells that its callers may say what they want of the cache.
    """

    name: str
    service: Service
    cached: bool = False


class Catalogue:
    """Every configured model. A plain name comes before any glob; among globs the first one wins.

    ``builders`` make the entry for a name that is asked for. Names behind a glob are the clients' to
    choose, so only the latest of them are remembered.
    """

    def __init__(self, builders: Mapping[str, Callable[[str], Entry]]) -> None:
        self._by_name = {name: build(name) for name, build in builders.items() if not is_glob(name)}
        self._globs = [(name, build) for name, build in builders.items() if is_glob(name)]
        self._find_glob = lru_cache(maxsize=_REMEMBERED)(self._match)

    def find(self, model: str) -> Entry | None:
        """The entry that a model's name leads to."""
        return self._by_name.get(model) or self._find_glob(model)

    def names(self) -> list[str]:
        """The plain names, as configured; what a glob stands for is only known upstream."""
        return list(self._by_name)

    def _match(self, model: str) -> Entry | None:
        return next((build(model) for name, build in self._globs if fnmatchcase(model, name)), None)


def is_glob(name: str) -> bool:
    """Whether a configured name stands for many names."""
    return not _GLOB.isdisjoint(name)


def model_not_found(model: str) -> ModelNotFound:
    """The error for a name that leads nowhere, or that the key may not use."""
    return ModelNotFound(
        f"The model '{model}' does not exist or this key may not use it. GET /v1/models lists those it may.",
        param="model",
    )

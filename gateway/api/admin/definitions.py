"""What tiers and tenants have in common: declared in the file or stored, read and written with their ETag.

A stored one takes the place of a declared one of its name, and gives it back when it is deleted.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

import orjson
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException

from gateway.api.admin.access import Actor
from gateway.api.admin.names import moment
from gateway.api.admin.preconditions import Preconditions
from gateway.serving import Serving
from gateway.settings import Tenant, Tier
from gateway.stores.definitions import Definitions, Stored, written

D = TypeVar("D", bound=Tier | Tenant)
Source = Literal["file", "stored", "built-in"]


class DefinitionView(BaseModel):
    """What a tier and a tenant are shown with besides their own fields."""

    name: str
    source: Source = Field(description="Where it is defined; built-in is the tier default if nobody did.")
    version: int | None = Field(description="Grows with every change; null unless it is stored.")
    changed: datetime | None = Field(description="When it was stored last.")
    limits: dict[str, Any] = Field(
        description="As in the configuration's file.", examples=[{"requests": ["10/minute", "50/day"]}]
    )
    zone: str | None = Field(description="Where its days and months begin; UTC if null.")


@dataclass(frozen=True, slots=True)
class State(Generic[D]):
    """A definition as it is now; ``stored`` None where it isn't the database's."""

    name: str
    definition: D
    source: Source
    stored: Stored[D] | None = None

    @property
    def tag(self) -> str:
        """Its strong ETag."""
        if self.stored is not None:
            return f'"{self.stored.version}"'
        content = orjson.dumps(written(self.definition), option=orjson.OPT_SORT_KEYS)
        return f'"{self.source}-{hashlib.sha256(content).hexdigest()[:12]}"'

    def shown(self) -> dict[str, Any]:
        """Its JSON: every field, those that are as by default included."""
        stored = self.stored
        return {
            "name": self.name,
            "source": self.source,
            "version": None if stored is None else stored.version,
            "changed": None if stored is None else moment(stored.changed).isoformat().replace("+00:00", "Z"),
            **self.definition.model_dump(mode="json"),
            "limits": self.definition.limits.written(),
        }

    def answer(self, status: int = 200) -> Response:
        """It with its ETag."""
        return JSONResponse(self.shown(), status, {"etag": self.tag})


class Shelf(Generic[D]):
    """The definitions of one kind; ``noun`` is its name, ``parse`` reads one.

    ``declared`` gives those of the file, ``builtin`` those that always are.
    """

    def __init__(  # noqa: PLR0913 - what a kind is made of
        self,
        serving: Serving,
        store: Definitions[D],
        parse: Callable[[Any], D],
        *,
        noun: str,
        declared: Callable[[], Mapping[str, D]],
        builtin: Mapping[str, D],
    ) -> None:
        self._serving = serving
        self._store = store
        self._parse = parse
        self._noun = noun
        self._declared = declared
        self._builtin = builtin

    async def list(self) -> Response:
        """All of them by name."""
        stored = await self._store.all()
        names = sorted({*self._builtin, *self._declared(), *stored})
        states = [self._state(name, stored.get(name)) for name in names]
        return JSONResponse([state.shown() for state in states if state is not None])

    async def get(self, name: str) -> State[D]:
        """The one of this name. Raises 404."""
        state = self._state(name, await self._store.get(name))
        if state is None:
            raise self._missing(name)
        return state

    async def put(self, name: str, definition: D, meant: Preconditions, by: Actor) -> Response:
        """Define it anew."""
        return await self._change(name, lambda _: definition, meant, by)

    async def patch(self, name: str, patch: Mapping[str, Any], meant: Preconditions, by: Actor) -> Response:
        """Change some of its fields (RFC 7396)."""

        def patched(state: State[D] | None) -> D:
            if state is None:
                raise self._missing(name)
            try:
                return self._parse(merge(written(state.definition), patch))
            except ValidationError as error:
                raise RequestValidationError(
                    [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]
                ) from None

        return await self._change(name, patched, meant, by)

    async def delete(
        self, name: str, meant: Preconditions, by: Actor, refuse: Callable[[], None] = lambda: None
    ) -> Response:
        """Delete what is stored; ``refuse`` raises where there is a reason not to, if none else is left."""

        def decide(stored: Stored[D] | None) -> None:
            state = self._state(name, stored)
            if state is None:
                raise self._missing(name)
            meant.check(state.tag)
            if stored is None:
                where = "built in" if state.source == "built-in" else "declared in the configuration's file"
                raise HTTPException(409, f"The {self._noun} {name} is {where}; nothing is stored of it.")
            if self._state(name, None) is None:
                refuse()

        await self._store.change(name, decide, by.author)
        await self._serving.changes.tell()
        return Response(status_code=204)

    async def _change(
        self, name: str, changed: Callable[[State[D] | None], D], meant: Preconditions, by: Actor
    ) -> Response:
        created = False

        def decide(stored: Stored[D] | None) -> D:
            nonlocal created
            state = self._state(name, stored)
            created = state is None
            meant.check(None if state is None else state.tag)
            return changed(state)

        stored = await self._store.change(name, decide, by.author)
        assert stored is not None  # noqa: S101 - decide gives a definition
        await self._serving.changes.tell()
        return State(name, stored.definition, "stored", stored).answer(201 if created else 200)

    def _state(self, name: str, stored: Stored[D] | None) -> State[D] | None:
        if stored is not None:
            return State(name, stored.definition, "stored", stored)
        if name in (declared := self._declared()):
            return State(name, declared[name], "file")
        if name in self._builtin:
            return State(name, self._builtin[name], "built-in")
        return None

    def _missing(self, name: str) -> HTTPException:
        return HTTPException(404, f"There is no {self._noun} {name}. GET /admin/{self._noun}s lists them.")


def merge(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7396): null takes a member away, objects merge, the rest replaces."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged

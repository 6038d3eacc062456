"""Who turns a prompt into a vector, as calls see it: in batches, and never for longer than they can wait.

Texts that come while others are being computed go together in the next batch. How many wait is bounded, and
so is how long a call does: one whose text finds no room, or whose vector isn't there in time, goes on
without, as a miss. From then on nobody waits until a batch has been in time again, and one text at a time
finds that out. So a model that is slow or away costs a few calls some time, and all others nothing but their
hits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from gateway.cache.semantic.minilm import Array
from policies.cache.exact import Spawn
from policies.ports import Clock
from policies.service import Call

Vectors = list[Array | None]


class Wanted(NamedTuple):
    """A text, and the call that its vector is for."""

    text: str
    cause: Call


Model = Callable[[Sequence[Wanted]], Awaitable[Vectors]]
"""Turns many texts into vectors of length 1; None for those that it can't. Never raises."""


class Embedder(Protocol):
    """Turns a text into a vector of length 1."""

    async def __call__(self, text: str, cause: Call, /) -> Array | None:
        """The text's vector; None where there is none to be had in time. Never raises."""
        ...


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """``most`` texts may wait, each for ``patience`` seconds; ``together`` of them are computed at once."""

    patience: float = 0.5
    most: int = 256
    together: int = 16

    def __post_init__(self) -> None:
        if min(self.most, self.together) < 1:
            raise ValueError("a batch takes 1 text or more")
        if self.patience <= 0:
            raise ValueError("cache.embeddings_timeout must be above 0 s")


class Batched:
    """An Embedder in front of ``model`` that gathers what waits. Equal texts share one vector."""

    def __init__(self, model: Model, options: BatchOptions, *, clock: Clock, spawn: Spawn) -> None:
        self._model = model
        self._options = options
        self._clock = clock
        self._spawn = spawn
        self._waiting: list[Wanted] = []
        self._expected: dict[str, asyncio.Future[Array | None]] = {}
        self._running = False
        self._late = False

    async def __call__(self, text: str, cause: Call) -> Array | None:
        if self._late:
            if not self._running:
                self._expect(text, cause)
            return None
        vector = self._expected.get(text)
        if vector is None:
            if len(self._waiting) >= self._options.most:
                return None
            vector = self._expect(text, cause)
        try:
            async with self._clock.timeout_at(self._clock.now() + self._options.patience):
                return await asyncio.shield(vector)
        except TimeoutError:
            if vector.done():  # it was this process that was late
                return vector.result()
            self._late = True
            return None

    def _expect(self, text: str, cause: Call) -> "asyncio.Future[Array | None]":
        vector = self._expected[text] = asyncio.get_running_loop().create_future()
        self._waiting.append(Wanted(text, cause))
        if not self._running:
            self._running = True
            self._spawn(self._run())
        return vector

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[: self._options.together]
                del self._waiting[: len(batch)]
                began = self._clock.now()
                vectors = await self._model(batch)
                in_time = self._clock.now() - began <= self._options.patience
                if in_time and any(vector is not None for vector in vectors):
                    self._late = False
                for (text, _), vector in zip(batch, vectors, strict=True):
                    self._expected.pop(text).set_result(vector)
        finally:
            self._running = False
            self._waiting.clear()
            for expected in self._expected.values():
                expected.set_result(None)
            self._expected.clear()

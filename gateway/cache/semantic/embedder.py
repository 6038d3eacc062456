"""Who turns a prompt into a vector: the bundled model in a thread, or an upstream's /v1/embeddings.

Texts that come while others are being computed go together in the next batch. How many wait is bounded: a
call whose text finds no room goes on without, as a miss.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import orjson
from threadpoolctl import threadpool_limits

from gateway.cache.semantic.minilm import Array, MiniLm, ModelMissing, folder
from policies.cache.exact import Spawn
from policies.errors import GatewayError
from policies.ports import Clock
from policies.service import Call, Operation, Service

_LOG = logging.getLogger(__name__)
Vectors = list[Array | None]
_NO_MODEL = "the semantic cache answers nothing: %s"


class Embedder(Protocol):
    """Turns texts into vectors of length 1."""

    async def __call__(self, text: str, /) -> Array | None:
        """The text's vector; None where there is none to be had. Never raises."""
        ...


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """``most`` texts may wait, ``together`` of them are computed at once."""

    most: int = 256
    together: int = 16

    def __post_init__(self) -> None:
        if min(self.most, self.together) < 1:
            raise ValueError("a batch takes 1 text or more")


class Batched:
    """An Embedder that gathers what waits; ``embed`` does many, and raises nothing."""

    def __init__(
        self, embed: Callable[[Sequence[str]], Awaitable[Vectors]], options: BatchOptions, spawn: Spawn
    ) -> None:
        self._embed = embed
        self._options = options
        self._spawn = spawn
        self._waiting: list[tuple[str, asyncio.Future[Array | None]]] = []
        self._running = False

    async def __call__(self, text: str) -> Array | None:
        if len(self._waiting) >= self._options.most:
            return None
        vector: asyncio.Future[Array | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, vector))
        if not self._running:
            self._running = True
            self._spawn(self._run())
        return await vector

    async def _run(self) -> None:
        batch: list[tuple[str, asyncio.Future[Array | None]]] = []
        try:
            while self._waiting:
                batch = self._waiting[: self._options.together]
                del self._waiting[: len(batch)]
                vectors = await self._embed([text for text, _ in batch])
                for (_, future), vector in zip(batch, vectors, strict=True):
                    if not future.done():
                        future.set_result(vector)
        finally:
            self._running = False
            for _, future in batch + self._waiting:
                if not future.done():
                    future.set_result(None)


class LocalModel:
    """all-MiniLM-L6-v2 in a thread of its own, on one core. It is read as soon as it is made."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embeddings")
        self._model: MiniLm | None = None
        self._thread.submit(self._load)

    async def __call__(self, texts: Sequence[str]) -> Vectors:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._embed, texts)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _load(self) -> None:
        try:
            self._model = MiniLm(folder())
        except (ModelMissing, OSError) as error:
            _LOG.error(_NO_MODEL, error)

    def _embed(self, texts: Sequence[str]) -> Vectors:
        if self._model is None:
            return [None] * len(texts)
        with threadpool_limits(limits=1, user_api="blas"):
            return self._model.embed(texts)


class UpstreamModel:
    """A model of an upstream. ``service``, the way there, changes with the configuration."""

    def __init__(self, model: str, clock: Clock, *, patience: float = 5.0) -> None:
        self._model = model
        self.service: Service | None = None
        self._clock = clock
        self._patience = patience
        self._calls = 0

    async def __call__(self, texts: Sequence[str]) -> Vectors:
        if self.service is None:
            return [None] * len(texts)
        self._calls += 1
        now = self._clock.now()
        call = Call(
            id=f"embed-{self._calls}",
            operation=Operation.EMBEDDING,
            model=self._model,
            body={"model": self._model, "input": list(texts), "encoding_format": "float"},
            arrived=now,
            deadline=now + self._patience,
        )
        try:
            async with self._clock.timeout_at(call.deadline), self.service(call) as reply:
                answer = orjson.loads(b"".join([event.data async for event in reply.events]))
            return _unit_vectors(answer["data"], len(texts))
        except (GatewayError, TimeoutError, ValueError, KeyError, TypeError) as error:
            _LOG.warning("no embeddings from %s: %s", self._model, error)
            return [None] * len(texts)


def _unit_vectors(rows: Sequence[Mapping[str, Any]], count: int) -> Vectors:
    if len(rows) != count:
        raise ValueError(f"{len(rows)} embeddings for {count} texts")
    vectors = [np.asarray(row["embedding"], np.float32) for row in sorted(rows, key=lambda row: row["index"])]
    return [vector / np.linalg.norm(vector) for vector in vectors]

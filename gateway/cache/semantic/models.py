"""The models behind the semantic cache: the bundled one in a thread, or an upstream's /v1/embeddings.

What an upstream asks for its vectors is somebody's bill. Each call whose text was in a batch is told of its
part, by the length of its texts.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
from threadpoolctl import threadpool_limits

from gateway.cache.semantic.embedder import Vectors, Wanted
from gateway.cache.semantic.minilm import MiniLm, ModelMissing, folder
from policies.errors import GatewayError
from policies.facts import PromptEmbedded
from policies.ports import Clock, Meter
from policies.service import CANCELLED, OK, Call, Operation, Reply, Service, Usage

_LOG = logging.getLogger(__name__)


class LocalModel:
    """all-MiniLM-L6-v2 in a thread of its own, on one core. It is read as soon as it is made."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embeddings")
        self._model: MiniLm | None = None
        self._thread.submit(self._load)

    async def __call__(self, wanted: Sequence[Wanted]) -> Vectors:
        texts = [text for text, _ in wanted]
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._embed, texts)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _load(self) -> None:
        try:
            self._model = MiniLm(folder())
        except (ModelMissing, OSError) as error:
            _LOG.error("the semantic cache answers nothing: %s", error)

    def _embed(self, texts: Sequence[str]) -> Vectors:
        if self._model is None:
            return [None] * len(texts)
        with threadpool_limits(limits=1, user_api="blas"):
            return self._model.embed(texts)


class UpstreamModel:
    """A model of an upstream. ``service``, the way there, changes with the configuration."""

    def __init__(self, model: str, clock: Clock, meter: Meter, *, longest: float = 5.0) -> None:
        self._model = model
        self.service: Service | None = None
        self._clock = clock
        self._meter = meter
        self._longest = longest
        self._calls = 0
        self._away = False

    async def __call__(self, wanted: Sequence[Wanted]) -> Vectors:
        nothing: Vectors = [None] * len(wanted)
        if self.service is None:
            return nothing
        call = self._call([text for text, _ in wanted])
        reply: Reply | None = None
        outcome = CANCELLED
        try:
            async with self._clock.timeout_at(call.deadline), self.service(call) as reply:
                body = b"".join([event.data async for event in reply.events])
            outcome = OK
            vectors: Vectors = [*_unit_vectors(orjson.loads(body)["data"], len(wanted))]
        except (GatewayError, TimeoutError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, GatewayError):
                outcome = type(error).__name__
            self._tell(error)
            return nothing
        else:
            self._tell(None)
            return vectors
        finally:
            for part in _parts(call, wanted, reply, outcome):
                self._meter.emit(part)

    def _call(self, texts: list[str]) -> Call:
        self._calls += 1
        now = self._clock.now()
        return Call(
            id=f"embed-{self._calls}",
            operation=Operation.EMBEDDING,
            model=self._model,
            route=self._model,
            body={"model": self._model, "input": texts, "encoding_format": "float"},
            arrived=now,
            deadline=now + self._longest,
        )

    def _tell(self, error: Exception | None) -> None:
        """Say once that there are no vectors, and once that there are."""
        if error is not None and not self._away:
            why = str(error) or type(error).__name__
            _LOG.warning("no embeddings from %s, the semantic cache answers nothing: %s", self._model, why)
        if error is None and self._away:
            _LOG.info("there are embeddings from %s again", self._model)
        self._away = error is not None


def _parts(call: Call, wanted: Sequence[Wanted], reply: Reply | None, outcome: str) -> list[PromptEmbedded]:
    """What a batch was for each text's call."""
    whole = sum(len(text) for text, _ in wanted)
    told, before = [], 0
    for text, cause in wanted:
        after = before + len(text)
        its_reply = reply
        if reply is not None and reply.usage is not None:
            its_reply = replace(reply, usage=_part(reply.usage, before / whole, after / whole))
        its_call = replace(
            cause,
            operation=Operation.EMBEDDING,
            body={**call.body, "input": text},
            stream=False,
            attempts=call.attempts,
            delivered=0,
            estimate=None,
        )
        told.append(PromptEmbedded(its_call, outcome, its_reply))
        before = after
    return told


def _part(usage: Usage, start: float, end: float) -> Usage:
    """What lies between two fractions of it. Adjacent parts add up to the whole."""

    def within(amount: float | None) -> float | None:
        return None if amount is None else amount * (end - start)

    return replace(
        usage,
        input=round(usage.input * end) - round(usage.input * start),
        cached_input=0,
        cost=within(usage.cost),
        joules=within(usage.joules),
        flops=within(usage.flops),
    )


def _unit_vectors(rows: Sequence[Mapping[str, Any]], count: int) -> Vectors:
    if len(rows) != count:
        raise ValueError(f"{len(rows)} embeddings for {count} texts")
    vectors = [np.asarray(row["embedding"], np.float32) for row in sorted(rows, key=lambda row: row["index"])]
    if not all(vector.ndim == 1 and 0 < np.linalg.norm(vector) < np.inf for vector in vectors):
        raise ValueError("embeddings that have no direction")
    return [vector / np.linalg.norm(vector) for vector in vectors]

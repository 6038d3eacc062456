"""POST /v1/embeddings: a vector for each text."""

import base64
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from local_backend.clock import now
from local_backend.engine.engine import Generation
from local_backend.engine.request import Embedding, Finished
from local_backend.serve import errors
from local_backend.serve.job import ServedModel, check_prompt
from local_backend.serve.reply import Outcome, raise_for
from local_backend.serve.schema import Texts, listed


class EmbeddingRequest(BaseModel):
    """OpenAI's request."""

    model_config = ConfigDict(extra="ignore")

    model: str
    input: Texts
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


def tokenize(request: EmbeddingRequest, model: ServedModel) -> list[list[int]]:
    """The inputs as tokens. Raises ApiError when they cannot be embedded."""
    facts = model.facts
    if request.model != facts.model_id:
        raise errors.model_not_found(request.model)
    if request.dimensions not in (None, facts.hidden_size):
        message = f"this model's vectors have {facts.hidden_size} dimensions, and cannot be shortened"
        raise errors.invalid_request(message, "dimensions")
    inputs = [
        model.tokenizer.encode(each) if isinstance(each, str) else each for each in listed(request.input)
    ]
    for each in inputs:
        check_prompt(each, 0, facts, "input")
    return inputs


class EmbeddingReply:
    """The vectors of one request while they are computed."""

    def __init__(self, request: EmbeddingRequest, tokens: int, generation: Generation) -> None:
        self._request = request
        self._generation = generation
        self._arrived = now()
        self.outcome = Outcome(prompt_tokens=tokens)

    def abort(self) -> None:
        """Stop; nobody is listening any more."""
        self._generation.abort()

    async def whole(self) -> dict[str, Any]:
        """The answer. Raises ApiError when the engine fails or stops."""
        vectors: dict[int, Sequence[float]] = {}
        async for index, event in self._generation:
            if isinstance(event, Embedding):
                vectors[index] = event.values
            elif isinstance(event, Finished):
                self.outcome.efforts.append(event.effort)
                raise_for(event.reason)
        self.outcome.first_token_seconds = now() - self._arrived
        data = [
            {"object": "embedding", "index": index, "embedding": self._encoded(vectors[index])}
            for index in sorted(vectors)
        ]
        tokens = self.outcome.prompt_tokens
        usage = self.outcome.usage({"prompt_tokens": tokens, "total_tokens": tokens})
        return {"object": "list", "data": data, "model": self._request.model, "usage": usage}

    def _encoded(self, vector: Sequence[float]) -> list[float] | str:
        if self._request.encoding_format == "float":
            return list(vector)
        return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()

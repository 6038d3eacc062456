"""Runs a job on the engine and words the result, whole or as server-sent events."""

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import orjson

from local_backend.clock import now, unix_time
from local_backend.engine.effort import Effort
from local_backend.engine.engine import Generation
from local_backend.engine.request import Finished, FinishReason, Token
from local_backend.serve import errors
from local_backend.serve.dialect import Choice
from local_backend.serve.job import Job, ServedModel
from local_backend.serve.text import Piece, TextStream


@dataclass
class Outcome:
    """What a request came to, for its log line and the metrics. Seconds since the request arrived."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    first_token_seconds: float | None = None
    finish_reasons: list[str] = field(default_factory=list)
    efforts: list[Effort] = field(default_factory=list)
    """What each sequence took that has ended."""

    def usage(self, tokens: Mapping[str, Any]) -> dict[str, Any]:
        """OpenAI's usage with these counts, and what the answer took."""
        took = sum(self.efforts[1:], self.efforts[0]) if self.efforts else Effort()
        energy = {"joules": round(took.joules, 6), "source": took.source}
        return {**tokens, "energy": energy, "flops": took.flops}


class Reply:
    """One job in flight. Iterate `whole` or `events` once; `outcome` is filled on the way."""

    def __init__(self, job: Job, generation: Generation, model: ServedModel) -> None:
        self._job = job
        self._generation = generation
        self._arrived = now()
        self._streams = [TextStream(model.tokenizer, job.stop, job.repeated) for _ in job.prompts]
        self._frame = {
            "id": job.dialect.id_prefix + secrets.token_hex(12),
            "created": unix_time(),
            "model": model.facts.model_id,
            "system_fingerprint": "fp_" + model.facts.fingerprint,
        }
        self.outcome = Outcome(prompt_tokens=job.prompt_tokens)

    def abort(self) -> None:
        """Stop generating; nobody is listening any more."""
        self._generation.abort()

    async def whole(self) -> dict[str, Any]:
        """The unary answer. Raises ApiError when the engine fails or stops."""
        choices = [Choice(index) for index in range(len(self._job.prompts))]
        async for index, event in self._pieces():
            if isinstance(event, Piece):
                choices[index].text += event.text
                choices[index].tokens += event.tokens
            else:
                choices[index].finish_reason = event
        worded = [self._job.dialect.whole(choice) for choice in self._chosen(choices)]
        return {
            **self._frame,
            "object": self._job.dialect.whole_object,
            "choices": worded,
            "usage": self._usage(),
        }

    async def events(self) -> AsyncGenerator[bytes]:
        """The answer as server-sent events, up to and including [DONE]. Raises as `whole`."""
        dialect = self._job.dialect
        opened: set[int] = set()
        async for index, event in self._pieces():
            if index not in opened:
                opened.add(index)
                if (opening := dialect.opening(index)) is not None:
                    yield self._chunk([opening])
            if isinstance(event, Piece):
                if (piece := dialect.piece(index, event)) is not None:
                    yield self._chunk([piece])
            else:
                yield self._chunk([dialect.closing(index, event)])
        if self._job.include_usage:
            yield self._chunk([], usage=self._usage())
        yield b"data: [DONE]\n\n"

    async def _pieces(self) -> AsyncIterator[tuple[int, Piece | str]]:
        """Pieces of every choice as they come, and each choice's finish reason."""
        done: set[int] = set()
        async for index, event in self._generation:
            if isinstance(event, Finished):
                self.outcome.efforts.append(event.effort)
                if index % self._job.best_of == 0:  # the others find what this one computed
                    self.outcome.cached_tokens += event.cached_tokens
            if index in done:
                continue
            stream = self._streams[index]
            if isinstance(event, Token):
                if self.outcome.first_token_seconds is None:
                    self.outcome.first_token_seconds = now() - self._arrived
                self.outcome.completion_tokens -= stream.tokens
                piece = stream.push(event)
                self.outcome.completion_tokens += stream.tokens
                reason = FinishReason.STOP if stream.stopped else None
            elif isinstance(event, Finished):
                raise_for(event.reason)
                piece, reason = stream.flush(), event.reason
            else:
                continue
            if piece.text or piece.tokens:
                yield index, piece
            if reason is not None:
                done.add(index)
                self._generation.abort(index)
                self.outcome.finish_reasons.append(reason.value)
                yield index, reason.value

    def _chosen(self, choices: list[Choice]) -> list[Choice]:
        """The likeliest n of every best_of, by the mean log-probability of their tokens."""
        n, best_of = self._job.n, self._job.best_of
        if n == best_of:
            return choices
        groups = [choices[start : start + best_of] for start in range(0, len(choices), best_of)]
        chosen = [choice for group in groups for choice in sorted(group, key=_likelihood, reverse=True)[:n]]
        return [replace(choice, index=index) for index, choice in enumerate(chosen)]

    def _chunk(self, choices: list[dict[str, Any]], usage: Mapping[str, Any] | None = None) -> bytes:
        body = {**self._frame, "object": self._job.dialect.chunk_object, "choices": choices}
        if self._job.include_usage:
            body["usage"] = usage
        return event_bytes(body)

    def _usage(self) -> dict[str, Any]:
        prompt, completion = self.outcome.prompt_tokens, self.outcome.completion_tokens
        tokens = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": self.outcome.cached_tokens},
        }
        return self.outcome.usage(tokens)


def _likelihood(choice: Choice) -> float:
    return fmean([token.logprob or 0.0 for token in choice.tokens] or [0.0])


def raise_for(reason: FinishReason) -> None:
    """Raises ApiError when a sequence did not end by itself."""
    if reason is FinishReason.ERROR:
        raise errors.model_failed()
    if reason is FinishReason.ABORT:
        raise errors.shutting_down()


def event_bytes(body: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(body) + b"\n\n"

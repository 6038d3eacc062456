"""The HTTP application: OpenAI's endpoints, health and metrics."""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from local_backend.clock import now, unix_time
from local_backend.engine.admission import QueueFull
from local_backend.engine.engine import Engine, EngineStopped, Generation
from local_backend.engine.request import SamplingParams
from local_backend.serve import errors
from local_backend.serve.caller import Caller, read_caller
from local_backend.serve.embeddings import EmbeddingReply, EmbeddingRequest, tokenize
from local_backend.serve.errors import ApiError
from local_backend.serve.job import Job, ServedModel, chat_job, completion_job
from local_backend.serve.metrics import Metrics
from local_backend.serve.reply import Outcome, Reply
from local_backend.serve.response import GenerationResponse
from local_backend.serve.schema import ChatRequest, CompletionRequest

log = logging.getLogger("local_backend.access")

_MAX_BODY = 4 << 20
_Body = TypeVar("_Body", bound=BaseModel)
Started = tuple[Reply | EmbeddingReply, AsyncGenerator[bytes] | None]
"""A reply, and its events where it is streamed."""


@dataclass(frozen=True)
class Service:
    """Everything the endpoints work with."""

    engine: Engine
    model: ServedModel
    metrics: Metrics


def build_app(service: Service) -> Starlette:
    """The ASGI application; its lifespan starts and stops the engine."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        service.engine.start()
        yield
        await service.engine.stop()

    endpoints = _Endpoints(service)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", endpoints.chat, methods=["POST"]),
            Route("/v1/completions", endpoints.completions, methods=["POST"]),
            Route("/v1/embeddings", endpoints.embeddings, methods=["POST"]),
            Route("/v1/models", endpoints.models),
            Route("/v1/models/{model:path}", endpoints.model),
            Route("/healthz", endpoints.health),
            Route("/load", endpoints.load),
            Route("/metrics", endpoints.scrape),
        ],
        exception_handlers={ApiError: _api_error, HTTPException: _http_error, Exception: _unexpected},
        lifespan=lifespan,
    )


class _Endpoints:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._created = unix_time()

    async def chat(self, request: Request) -> GenerationResponse:
        async def start(body: ChatRequest, caller: Caller) -> Started:
            return self._start(await asyncio.to_thread(chat_job, body, self._service.model), caller)

        return await self._answer(request, "chat", ChatRequest, start)

    async def completions(self, request: Request) -> GenerationResponse:
        async def start(body: CompletionRequest, caller: Caller) -> Started:
            return self._start(await asyncio.to_thread(completion_job, body, self._service.model), caller)

        return await self._answer(request, "completions", CompletionRequest, start)

    async def embeddings(self, request: Request) -> GenerationResponse:
        async def start(body: EmbeddingRequest, caller: Caller) -> Started:
            inputs = await asyncio.to_thread(tokenize, body, self._service.model)
            generation = self._submit(inputs, [None] * len(inputs), caller, "input")
            return EmbeddingReply(body, sum(map(len, inputs)), generation), None

        return await self._answer(request, "embeddings", EmbeddingRequest, start)

    async def models(self, _request: Request) -> Response:
        return _json({"object": "list", "data": [self._model_card()]})

    async def model(self, request: Request) -> Response:
        if (name := request.path_params["model"]) != self._service.model.facts.model_id:
            raise errors.model_not_found(name)
        return _json(self._model_card())

    async def health(self, _request: Request) -> Response:
        engine = self._service.engine
        body = {
            "status": "ok" if engine.is_running else "failed",
            "model": self._service.model.facts.model_id,
        }
        return _json(body, 200 if engine.is_running else 503)

    async def load(self, _request: Request) -> Response:
        load, admission = self._service.engine.load, self._service.engine.admission
        body = {
            "running": load.running,
            "waiting": max(0, admission.open - load.running),
            "capacity": admission.capacity,
            "free_blocks": load.free_blocks,
            "blocks": load.blocks,
            "tokens_per_second": round(load.tokens_per_second, 2),
            "expected_wait_seconds": round(admission.expected_wait(), 3),
        }
        return _json(body)

    async def scrape(self, _request: Request) -> Response:
        return Response(self._service.metrics.render(), media_type="text/plain; version=0.0.4")

    async def _answer(
        self,
        request: Request,
        endpoint: str,
        schema: type[_Body],
        start: Callable[[_Body, Caller], Awaitable[Started]],
    ) -> GenerationResponse:
        arrived = now()
        request_id = request.headers.get("x-request-id") or secrets.token_hex(12)

        def on_end(status: int, outcome: Outcome) -> None:
            self._service.metrics.record(endpoint, status, outcome)
            _log_request(request_id, endpoint, status, now() - arrived, outcome)

        try:
            caller = read_caller(request)
            reply, events = await start(await _read(request, schema), caller)
        except ApiError as error:
            on_end(error.status, Outcome())
            raise
        return GenerationResponse(reply, events, on_end)

    def _start(self, job: Job, caller: Caller) -> Started:
        generation = self._submit(job.prompts, job.params, caller, "n", begun=job.begun)
        reply = Reply(job, generation, self._service.model)
        return reply, reply.events() if job.stream else None

    def _submit(
        self,
        prompts: Sequence[Sequence[int]],
        params: Sequence[SamplingParams | None],
        caller: Caller,
        param: str,
        *,
        begun: Sequence[int] = (),
    ) -> Generation:
        engine = self._service.engine
        if len(prompts) > engine.admission.capacity:
            message = f"at most {engine.admission.capacity} can be worked on at once, not {len(prompts)}"
            raise errors.invalid_request(message, param)
        try:
            return engine.submit(prompts, params, begun=begun, tenant=caller.tenant, priority=caller.priority)
        except QueueFull as full:
            raise errors.queue_full(full.retry_after) from full
        except EngineStopped as stopped:
            raise errors.shutting_down() from stopped

    def _model_card(self) -> dict[str, object]:
        facts = self._service.model.facts
        return {
            "id": facts.model_id,
            "object": "model",
            "created": self._created,
            "owned_by": "tidegate",
            "max_model_len": facts.max_length,
        }


async def _read(request: Request, schema: type[_Body]) -> _Body:
    """The validated body. Raises ApiError when it is too large, not JSON or not valid."""
    content = bytearray()
    try:
        async for chunk in request.stream():
            content += chunk
            if len(content) > _MAX_BODY:
                raise ApiError(413, f"the body exceeds {_MAX_BODY} bytes", kind="invalid_request_error")
        body = orjson.loads(content)
        return schema.model_validate(body)
    except orjson.JSONDecodeError as error:
        raise errors.invalid_request("the body is not valid JSON") from error
    except ValidationError as error:
        raise errors.invalid_fields(error, body) from error
    except ClientDisconnect as error:
        raise ApiError(499, "the client left", kind="invalid_request_error") from error


def _log_request(request_id: str, endpoint: str, status: int, seconds: float, outcome: Outcome) -> None:
    first = outcome.first_token_seconds
    facts = {
        "request_id": request_id,
        "endpoint": endpoint,
        "status": status,
        "seconds": round(seconds, 4),
        "first_token_seconds": None if first is None else round(first, 4),
        "prompt_tokens": outcome.prompt_tokens,
        "completion_tokens": outcome.completion_tokens,
        "finish_reasons": outcome.finish_reasons,
    }
    log.info("request", extra={"facts": facts})


def _json(body: object, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")


async def _api_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    response = _json(error.body(), error.status)
    response.headers.update(error.headers)
    return response


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    message = f"{request.method} {request.url.path} is not served here"
    return _json(ApiError(status, message, kind="invalid_request_error", code="unknown_url").body(), status)


async def _unexpected(_request: Request, _error: Exception) -> Response:
    return _json(ApiError(500, "Internal error", kind="server_error", code="internal_error").body(), 500)

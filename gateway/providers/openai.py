"""An upstream that speaks OpenAI's dialect, over httpx's transport interface."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from gateway.providers import classify
from gateway.providers.headers import headroom
from gateway.providers.replies import open_stream, open_whole, read_refusal
from policies.service import Call, Reply

_OK = 200


@dataclass(frozen=True, slots=True)
class Account:
    """One account of a provider: where it is, what identifies us there, and the dialect it speaks.

    ``rename`` maps a parameter of OpenAI's to the name that this provider knows it under;
    ``stream_usage`` tells whether it knows ``stream_options.include_usage``.
    """

    name: str
    base_url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    stream_usage: bool = True
    rename: Mapping[str, str] = field(default_factory=dict)


class OpenAIUpstream:
    """The innermost service: one model of one account. ``model`` None asks for what the caller asked for."""

    def __init__(
        self,
        account: Account,
        model: str | None,
        transport: httpx.AsyncBaseTransport,
        *,
        connect_timeout: float,
        wall_time: Callable[[], float],
    ) -> None:
        self._account = account
        self._model = model
        self._transport = transport
        self._base_url = account.base_url.rstrip("/")
        self._urls: dict[str, httpx.URL] = {}
        self._extensions = {"timeout": {"connect": connect_timeout}}
        self._wall_time = wall_time

    @asynccontextmanager
    async def __call__(self, call: Call) -> AsyncIterator[Reply]:
        name = self._account.name
        try:
            response = await self._transport.handle_async_request(self._request(call))
        except classify.TRANSPORT_ERRORS as error:
            raise classify.from_exception(name, error) from error
        try:
            if response.status_code != _OK:
                raise await read_refusal(response, name, self._wall_time())
            reply = Reply(upstream=name, model=self._model or call.model, stream=call.stream)
            reply.headroom = headroom(response.headers.raw)
            if call.stream:
                await open_stream(response, reply, usage_wanted=_wants_usage(call))
            else:
                await open_whole(response, reply)
            yield reply
        finally:
            await response.aclose()

    def _request(self, call: Call) -> httpx.Request:
        path = call.operation.value
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = httpx.URL(f"{self._base_url}/{path}")
        headers = [
            *self._account.headers,
            ("content-type", "application/json"),
            ("accept", "text/event-stream" if call.stream else "application/json"),
            ("accept-encoding", "identity"),
            ("x-request-id", call.id),
        ]
        return httpx.Request(
            "POST", url, headers=headers, content=orjson.dumps(self._body(call)), extensions=self._extensions
        )

    def _body(self, call: Call) -> dict[str, Any]:
        body = dict(call.body)
        if self._model is not None:
            body["model"] = self._model
        for theirs, ours in self._account.rename.items():
            if theirs in body:
                body[ours] = body.pop(theirs)
        if call.stream and self._account.stream_usage:
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        return body


def _wants_usage(call: Call) -> bool:
    options = call.body.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))

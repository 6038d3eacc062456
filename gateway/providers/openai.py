"""An upstream that speaks OpenAI's dialect, over httpx's transport interface."""

from collections.abc import AsyncGenerator, Callable

import httpx
import orjson

from gateway.providers import classify
from gateway.providers.caller import CallerHeaders
from gateway.providers.dialect import Account
from gateway.providers.encoding import accepted, compressed
from gateway.providers.headers import headroom
from gateway.providers.replies import open_stream, open_whole, read_refusal
from policies.opening import opening
from policies.service import Call, Reply

_OK = 200


class OpenAIUpstream:
    """The innermost service: one model of one account, told who calls where there are ``caller_headers``."""

    def __init__(  # noqa: PLR0913 - what it reaches, and its ports
        self,
        account: Account,
        model: str,
        transport: httpx.AsyncBaseTransport,
        *,
        connect_timeout: float,
        wall_time: Callable[[], float],
        caller_headers: CallerHeaders | None = None,
    ) -> None:
        self._account = account
        self._model = model
        self._transport = transport
        self._urls: dict[str, httpx.URL] = {}
        # Headers that are the same at every call are parsed once.
        shared = [*account.headers, ("content-type", "application/json")]
        stream = [("accept", "text/event-stream"), ("accept-encoding", "identity")]
        body = [("accept", "application/json"), ("accept-encoding", accepted(account.base_url))]
        self._stream_headers = httpx.Headers([*shared, *stream])
        self._body_headers = httpx.Headers([*shared, *body])
        self._extensions = {"timeout": {"connect": connect_timeout}}
        self._wall_time = wall_time
        self._caller_headers = caller_headers

    @opening
    async def __call__(self, call: Call) -> AsyncGenerator[Reply]:
        name = self._account.name
        try:
            response = await self._transport.handle_async_request(self._request(call))
        except classify.TRANSPORT_ERRORS as error:
            raise classify.from_exception(name, error) from error
        try:
            if response.status_code != _OK:
                raise await read_refusal(response, name, self._wall_time())
            reply = Reply(upstream=name, model=self._model, stream=call.stream)
            reply.headroom = headroom(response.headers.raw)
            if call.stream:
                await open_stream(response, reply, usage_wanted=_wants_usage(call), choices=_choices(call))
            else:
                await open_whole(response, reply)
            yield reply
        finally:
            await response.aclose()

    def _request(self, call: Call) -> httpx.Request:
        body, encoding = compressed(
            orjson.dumps(self._account.body(call, self._model)), self._account.compress
        )
        request = httpx.Request(
            "POST",
            self._url(call),
            headers=self._stream_headers if call.stream else self._body_headers,
            # Given as a stream, it isn't looked through for headers that the transport sets anyway.
            stream=httpx.ByteStream(body),
            extensions=self._extensions,
        )
        request.read()
        request.headers["x-request-id"] = call.id
        if self._caller_headers is not None:
            request.headers.update(self._caller_headers(call))
        if encoding is not None:
            request.headers["content-encoding"] = encoding
        return request

    def _url(self, call: Call) -> httpx.URL:
        text = self._account.url(call)
        url = self._urls.get(text)
        if url is None:
            url = self._urls[text] = httpx.URL(text)
        return url


def _wants_usage(call: Call) -> bool:
    options = call.body.get("stream_options")
    return isinstance(options, dict) and bool(options.get("include_usage"))


def _choices(call: Call) -> int:
    """How many choices the caller asks for: ``n`` for each prompt, of which completions take several."""
    prompt = call.body.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else 1
    return prompts * (call.body.get("n") or 1)

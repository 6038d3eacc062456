"""Asking an upstream once whether it answers, for the prober."""

from collections.abc import Awaitable, Callable
from typing import Literal

import httpx
import orjson

from gateway.providers import classify
from gateway.providers.dialect import Account
from gateway.providers.replies import read_refusal


def probe_check(
    account: Account,
    model: str,
    kind: Literal["off", "models", "token"],
    transport: httpx.AsyncBaseTransport,
    wall_time: Callable[[], float],
) -> Callable[[], Awaitable[None]]:
    """A check that raises ``UpstreamError`` unless the upstream answers 200.

    "token" asks the model for one token, which costs money; anything else lists the account's models.
    """

    def request() -> httpx.Request:
        if kind == "token":
            question = {"model": model, "messages": [{"role": "user", "content": "ping"}], "max_tokens": 1}
            headers = [*account.headers, ("content-type", "application/json")]
            url = f"{account.base_url}/chat/completions"
            return httpx.Request("POST", url, headers=headers, content=orjson.dumps(question))
        return httpx.Request("GET", f"{account.base_url}/models", headers=list(account.headers))

    async def check() -> None:
        try:
            response = await transport.handle_async_request(request())
        except classify.TRANSPORT_ERRORS as error:
            raise classify.from_exception(account.name, error) from error
        try:
            if response.status_code != httpx.codes.OK:
                raise await read_refusal(response, account.name, wall_time())
        finally:
            await response.aclose()

    return check

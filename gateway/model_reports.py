"""What the bundled model servers report of themselves, over loopback."""

import asyncio
from collections.abc import Callable, Mapping

import httpx

from gateway.providers.classify import TRANSPORT_ERRORS
from gateway.settings import LocalProvider, Settings

_PATIENCE = 1.0


class ModelReports:
    """Asks those that the configuration names now. ``urls`` gives the base URL of each by its provider."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        urls: Callable[[], Mapping[str, str]],
        transport: httpx.AsyncBaseTransport,
    ) -> None:
        self._settings = settings
        self._urls = urls
        self._transport = transport

    async def missing(self) -> list[str]:
        """A line for each model that nothing can answer yet, because its model server isn't up."""
        answers = await self._ask_all("/healthz")
        silent = {name for name, answer in answers.items() if answer is None}
        return [
            f"{name}: the model server '{target.provider}' is not up"
            for name, model in self._settings().models.items()
            for target in [model.route[0][0]]
            if all(target.provider in silent for step in model.route for target in step)
        ]

    async def metrics(self) -> dict[str, str | None]:
        """What each tells at its /metrics, by its provider; None without an answer."""
        return await self._ask_all("/metrics")

    async def _ask_all(self, path: str) -> dict[str, str | None]:
        """What each answers, by its provider; None where that isn't 200."""
        providers = self._settings().providers
        names = [name for name, provider in providers.items() if isinstance(provider, LocalProvider)]
        urls = self._urls() if names else {}
        answers = await asyncio.gather(*(self._ask(urls.get(name), path) for name in names))
        return dict(zip(names, answers, strict=True))

    async def _ask(self, base_url: str | None, path: str) -> str | None:
        if base_url is None:  # between a change of the configuration and its reload
            return None
        url = httpx.URL(base_url).copy_with(path=path)
        try:
            async with asyncio.timeout(_PATIENCE):
                response = await self._transport.handle_async_request(httpx.Request("GET", url))
                body = await response.aread()
        except (TimeoutError, *TRANSPORT_ERRORS):
            return None
        return body.decode() if response.status_code == httpx.codes.OK else None

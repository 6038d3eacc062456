"""Loads a server over HTTP with streams side by side, and times what its clients see."""

import asyncio
import json
import statistics
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import httpx

from local_backend.clock import now
from local_backend.errors import BackendError

_TOPICS = ("rain", "iron", "salt", "gold", "wood", "wind", "sand", "milk")
_TIMEOUT = 600.0
_P95 = 0.95


@dataclass(frozen=True)
class Stream:
    """One answer: seconds to its first token, between later ones, and tokens made."""

    first: float
    gaps: list[float]
    tokens: int


@dataclass(frozen=True)
class Level:
    """So many answers at once. Milliseconds; tokens a second are those of all answers together."""

    batch: int
    tokens: int
    ttft_median: float
    ttft_p95: float
    itl_median: float
    itl_p95: float
    tokens_per_second: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


async def measure(url: str, batches: list[int], tokens: int, rounds: int) -> list[Level]:
    """Every batch `rounds` times, after an answer that doesn't count."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=_TIMEOUT, limits=limits, trust_env=False) as client:
        model = (await _json(client, "GET", f"{url}/models"))["data"][0]["id"]
        await _stream(client, url, _body(model, "warm", 2))
        levels = []
        serial = 0
        for batch in batches:
            streams: list[Stream] = []
            elapsed = 0.0
            for _ in range(rounds):
                bodies = [_body(model, _prompt(serial + index), tokens) for index in range(batch)]
                serial += batch
                start = now()
                streams += await asyncio.gather(*(_stream(client, url, body) for body in bodies))
                elapsed += now() - start
            levels.append(_level(batch, streams, elapsed))
        return levels


def _prompt(serial: int) -> str:
    """Different from its first word on, so that no prefix is found again."""
    return f"{serial}. Write a long story about {_TOPICS[serial % 8]} and {_TOPICS[serial // 8 % 8]}."


def _body(model: str, prompt: str, tokens: int) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def _json(client: httpx.AsyncClient, method: str, url: str) -> Any:
    try:
        response = await client.request(method, url)
        response.raise_for_status()
        return response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise BackendError(f"{url}: {error}") from error


async def _stream(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> Stream:
    start = now()
    times: list[float] = []
    tokens = 0
    try:
        async with client.stream("POST", f"{url}/chat/completions", json=body) as response:
            if response.status_code != httpx.codes.OK:
                text = (await response.aread()).decode(errors="replace")[:200]
                raise BackendError(f"{url} answered {response.status_code}: {text}")
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    raise BackendError(f"{url} broke off: {event['error']}")
                if event.get("usage"):
                    tokens = event["usage"]["completion_tokens"]
                if any(choice["delta"].get("content") for choice in event["choices"]):
                    times.append(now())
    except httpx.HTTPError as error:
        raise BackendError(f"{url}: {error!r}") from error
    if not times:
        raise BackendError(f"{url} sent no token")
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return Stream(times[0] - start, gaps, tokens)


def _level(batch: int, streams: list[Stream], elapsed: float) -> Level:
    firsts = [stream.first for stream in streams]
    gaps = [gap for stream in streams for gap in stream.gaps] or [0.0]
    tokens = sum(stream.tokens for stream in streams)
    return Level(
        batch=batch,
        tokens=tokens,
        ttft_median=1000 * statistics.median(firsts),
        ttft_p95=1000 * _percentile(firsts),
        itl_median=1000 * statistics.median(gaps),
        itl_p95=1000 * _percentile(gaps),
        tokens_per_second=tokens / elapsed,
    )


def _percentile(values: list[float]) -> float:
    return sorted(values)[min(int(_P95 * len(values)), len(values) - 1)]

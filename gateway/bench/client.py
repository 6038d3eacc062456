"""A user: sends one chat, reads its stream, and tells what happened; whatever happens, it doesn't raise."""

from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from gateway.bench.answer import TRUNCATED, Answer, error_name
from gateway.bench.prompts import Prompt
from gateway.bench.sample import Sample
from gateway.bench.target import CHATS, Target
from gateway.wire.sse import EventDecoder
from policies.ports import Clock

_OK = 200
_POSTPONED = (429, 503)
_LONGEST_ERROR = 64 * 1024


class ChatClient:
    """Asks one target. ``session`` must not limit its connections: waiting for one would be hidden time."""

    def __init__(self, session: aiohttp.ClientSession, target: Target, clock: Clock) -> None:
        self._session = session
        self._target = target
        self._clock = clock

    async def ask(self, prompt: Prompt, due: float) -> Sample:
        """Ask, for a user who came at ``due``."""
        sent = self._clock.now()
        attempt = _Attempt()
        fault = ""
        try:
            async with self._clock.timeout_at(sent + self._target.timeout):
                while (wait := await self._try(prompt, attempt)) is not None:
                    attempt.postponed += 1
                    await self._clock.sleep(wait)
        except TimeoutError:
            fault = "timeout"
        except aiohttp.ClientConnectorError as error:
            fault = f"can't connect: {error.os_error.strerror or 'unknown'}"
        except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError):
            fault = "connection lost" if attempt.answer is None else attempt.answer.fault
        except aiohttp.ClientError as error:
            fault = type(error).__name__
        else:
            fault = attempt.fault or (attempt.answer.fault if attempt.answer else TRUNCATED)
        answer = attempt.answer or Answer()
        return Sample(
            due=due,
            sent=sent,
            ended=self._clock.now(),
            first=answer.first,
            last=answer.last,
            longest_gap=answer.longest_gap,
            prompt_tokens=answer.prompt_tokens,
            output_tokens=answer.output_tokens,
            status=attempt.status,
            postponed=attempt.postponed,
            fault=fault,
        )

    async def _try(self, prompt: Prompt, attempt: "_Attempt") -> float | None:
        """Send it once; the time to wait, if the server asks to come back and that is obeyed."""
        attempt.status = None
        body = orjson.dumps(self._request(prompt))
        given = {"content-type": "application/json", **self._target.headers}
        url = f"{self._target.url}{CHATS}"
        async with self._session.post(url, data=body, headers=given) as response:
            attempt.status = response.status
            if response.status != _OK:
                wait = _seconds(response.headers.get("retry-after"))
                if self._target.obey_retry_after and response.status in _POSTPONED and wait is not None:
                    return wait
                attempt.fault = f"HTTP {response.status} {await _error_of(response)}".rstrip()
            elif response.content_type != "text/event-stream":
                attempt.fault = f"not a stream but {response.content_type}"
            else:
                attempt.answer = Answer()
                await self._read(response, attempt.answer)
        return None

    def _request(self, prompt: Prompt) -> dict[str, Any]:
        return {
            "model": self._target.model,
            "messages": [{"role": "user", "content": prompt.text}],
            "max_tokens": prompt.output_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    async def _read(self, response: aiohttp.ClientResponse, answer: Answer) -> None:
        decoder = EventDecoder()
        async for piece in response.content.iter_any():
            now = self._clock.now()
            for message in decoder.feed(piece):
                answer.take(message, now)
        for message in decoder.flush():
            answer.take(message, self._clock.now())


@dataclass(slots=True)
class _Attempt:
    """How far the request has come."""

    status: int | None = None
    postponed: int = 0
    fault: str = ""
    answer: Answer | None = None


def _seconds(text: str | None) -> float | None:
    """A Retry-After in seconds; its other form, a date, isn't used by servers of this kind."""
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None


async def _error_of(response: aiohttp.ClientResponse) -> str:
    try:
        return error_name(orjson.loads(await response.content.read(_LONGEST_ERROR))["error"])
    except (ValueError, KeyError, TypeError):
        return ""

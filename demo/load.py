"""The crowd: customers of three tiers, who come at their own pace whatever becomes of their calls."""

import asyncio
from dataclasses import dataclass
from random import Random

import aiohttp

CHAT, SURE, FAQ = "chat", "chat-sure", "faq"
"""What clients may ask for: one of three upstreams, an answer in any case, and one out of the cache."""
QUESTIONS = 60
_PATIENCE = aiohttp.ClientTimeout(total=60)


@dataclass(frozen=True, slots=True)
class Crowd:
    """Customers with one key: they send ``rate`` calls a second, and ``rush`` in every third ten seconds."""

    tier: str
    model: str
    rate: float
    rush: float

    @property
    def key(self) -> str:
        """What they send to be let in."""
        return f"tg-demo-{self.tier}"


CROWDS = (Crowd("pro", CHAT, 4, 4), Crowd("plus", SURE, 2, 2.5), Crowd("free", CHAT, 1.5, 12))
"""What of ``plus`` finds no upstream goes to the bundled model, which has two cores where the machine has."""
_PERIOD = 30.0


async def crowd_in(url: str, crowd: Crowd, rng: Random) -> None:
    """Send calls until cancelled, by a Poisson process."""
    headers = {"authorization": f"Bearer {crowd.key}"}
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with (
        aiohttp.ClientSession(
            url, headers=headers, timeout=_PATIENCE, connector=aiohttp.TCPConnector(limit=0)
        ) as session,
        asyncio.TaskGroup() as calls,
    ):
        while True:
            rushing = (loop.time() - began) % _PERIOD > _PERIOD * 2 / 3
            await asyncio.sleep(rng.expovariate(crowd.rush if rushing else crowd.rate))
            calls.create_task(_call(session, _body(rng, crowd.model)))


def _body(rng: Random, model: str) -> dict[str, object]:
    """One call of three is one of the questions that many ask, which the cache may answer."""
    if rng.random() < 1 / 3:
        number = min(int(rng.paretovariate(0.6)), QUESTIONS)
        return {"model": FAQ, "temperature": 0, "messages": _messages(f"Question {number} of the tides?")}
    text = f"Tell me of tide {rng.randrange(10**9)}, in a few words."
    return {"model": model, "stream": True, "max_tokens": 16, "messages": _messages(text)}


def _messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def _call(session: aiohttp.ClientSession, body: dict[str, object]) -> None:
    try:
        async with session.post("/v1/chat/completions", json=body) as response:
            await response.read()
    except (aiohttp.ClientError, TimeoutError):
        pass  # how it ended is what the dashboards tell

"""Carries a plan out over the network."""

from collections.abc import Callable
from json import JSONDecodeError
from random import Random

import aiohttp

from gateway.bench.arrivals import poisson, within
from gateway.bench.client import ChatClient
from gateway.bench.loops import Record, closed_loop, open_loop
from gateway.bench.plan import OpenLoop, Plan
from gateway.bench.prompts import prompts
from gateway.bench.target import Target, headers
from policies.ports import Clock


def open_session() -> aiohttp.ClientSession:
    """Connections without a limit, to be closed."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None), read_bufsize=2**20
    )


async def first_model(url: str, key: str | None) -> str:
    """The first model that the server lists; ValueError, which says why, where there is none."""
    try:
        async with (
            open_session() as session,
            session.get(f"{url}/models", headers=headers(key), timeout=aiohttp.ClientTimeout(10)) as response,
        ):
            if not response.ok:
                raise ValueError(f"{url}/models answers HTTP {response.status}")
            return str((await response.json(content_type=None))["data"][0]["id"])
    except (aiohttp.ClientError, TimeoutError, aiohttp.InvalidURL) as error:
        raise ValueError(f"can't reach {url}: {error or 'no answer within 10 s'}") from None
    except (LookupError, TypeError, JSONDecodeError, UnicodeDecodeError):
        raise ValueError(f"{url}/models lists no model") from None


async def run(
    plan: Plan, target: Target, clock: Clock, record: Record, generator: Callable[[str], Random]
) -> None:
    """Carry the plan out; each request is told to ``record`` when it ends."""
    questions = prompts(plan.prompt_tokens, plan.output_tokens, generator("prompts"))
    async with open_session() as session:
        ask = ChatClient(session, target, clock).ask
        if isinstance(plan.load, OpenLoop):
            arrivals = within(poisson(plan.load.rate, generator("arrivals")), plan.duration, plan.requests)
            await open_loop(ask, questions, arrivals, clock, record)
        else:
            await closed_loop(
                ask,
                questions,
                clock,
                record,
                concurrency=plan.load.concurrency,
                requests=plan.requests,
                duration=plan.duration,
            )

"""When requests are sent.

Open loop: users come on their own, whether or not the server keeps up; a queue grows where it doesn't. That
is how the public behaves, and the honest way to time a server at a given load. Closed loop: so many users,
each of whom asks again once answered; a slow server is asked less. That is how a batch job behaves, and the
way to find what a server can do at most. (Schroeder and others, "Open
versus closed", NSDI 2006.)
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator

from gateway.bench.prompts import Prompt
from gateway.bench.sample import Sample
from policies.ports import Clock

Ask = Callable[[Prompt, float], Awaitable[Sample]]
Record = Callable[[Sample], None]


async def open_loop(
    ask: Ask, questions: Iterator[Prompt], arrivals: Iterable[float], clock: Clock, record: Record
) -> None:
    """Ask at each of these times, counted from now, and wait for all answers."""
    began = clock.now()

    async def user(due: float) -> None:
        record(await ask(next(questions), due))

    async with asyncio.TaskGroup() as users:
        for at in arrivals:
            await clock.sleep(max(0.0, began + at - clock.now()))
            users.create_task(user(began + at))


async def closed_loop(  # noqa: PLR0913 - the bounds, and what every loop needs
    ask: Ask,
    questions: Iterator[Prompt],
    clock: Clock,
    record: Record,
    *,
    concurrency: int,
    requests: int | None,
    duration: float | None,
) -> None:
    """Keep ``concurrency`` users asking until so many requests are sent or the time is over."""
    until = None if duration is None else clock.now() + duration
    numbers = iter(range(requests)) if requests is not None else None

    async def user() -> None:
        while until is None or clock.now() < until:
            if numbers is not None and next(numbers, None) is None:
                return
            record(await ask(next(questions), clock.now()))

    async with asyncio.TaskGroup() as users:
        for _ in range(concurrency if requests is None else min(concurrency, requests)):
            users.create_task(user())

"""Load by schedule: so many requests a second, whatever becomes of them, spread over several gateways."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.kit.chat import CHAT, chat
from tests.kit.processes import CLIENT_KEY, PATIENCE

_OK = 200


@dataclass(frozen=True)
class Answer:
    """When a request was sent and answered, in seconds since the start, and with which status."""

    sent: float
    at: float
    status: int


async def offer(urls: Sequence[str], rate: float, seconds: float, key: str = CLIENT_KEY) -> list[Answer]:
    """Send ``rate`` requests a second for so long, to each of ``urls`` in turn."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    body = json.dumps(chat("ok"))
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()

    async def send(url: str) -> Answer:
        sent = loop.time() - began
        parts = urlsplit(url)
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(request)
            status = int((await reader.readline()).split()[1])
            await reader.read(-1)
            writer.close()
        return Answer(sent, loop.time() - began, status)

    sending = []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + number / rate - loop.time()))
        sending.append(asyncio.create_task(send(urls[number % len(urls)])))
    return await asyncio.gather(*sending)


def most_in_a_window(answers: Sequence[Answer], rate: float) -> float:
    """By how much the calls let in exceed ``rate`` times the window, in the worst window: the burst.

    When a call was let in isn't seen, only that it was between its sending and its answer: a window counts
    the calls for which both fall into it, so that a busy machine can't make a burst of what was none.
    """
    let_in = sorted((answer for answer in answers if answer.status == _OK), key=lambda answer: answer.at)
    most = 0.0
    for begin in {answer.sent for answer in let_in}:
        inside = 0
        for answer in let_in:
            if answer.sent >= begin:
                inside += 1
                most = max(most, inside - rate * (answer.at - begin))
    return most

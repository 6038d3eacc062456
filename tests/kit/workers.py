"""The workers of a gateway one by one: the others are halted meanwhile."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.kit.processes import CLIENT_KEY, PATIENCE, Gateway, eventually, halted


@contextmanager
def only(gateway: Gateway, worker: int) -> Iterator[None]:
    """Have one worker answer alone."""
    others = [other for other in gateway.workers() if other != worker]
    try:
        for other in others:
            os.kill(other, signal.SIGSTOP)
        # A signal takes its time, in which they might take a connection and keep it.
        eventually(lambda: all(map(halted, others)))
        yield
    finally:
        for other in others:
            os.kill(other, signal.SIGCONT)


def each(gateway: Gateway) -> Iterator[int]:
    """Go through the workers, each of which answers alone for a while."""
    for worker in gateway.workers():
        with only(gateway, worker):
            yield worker


def ready(gateway: Gateway, count: int = 2) -> Gateway:
    """Wait until there are so many workers and each of them answers."""
    eventually(lambda: len(gateway.workers()) == count)
    for _ in each(gateway):
        eventually(lambda: status(gateway, CLIENT_KEY) == 200)
    return gateway


def get(gateway: Gateway, key: str, path: str = "/v1/models") -> httpx.Response | None:
    """Ask over a new connection; None where there is no answer."""
    try:
        return httpx.get(gateway.url + path, headers={"authorization": f"Bearer {key}"}, timeout=PATIENCE / 3)
    except httpx.TransportError:
        return None


def status(gateway: Gateway, key: str, path: str = "/v1/models") -> int | None:
    """What a key is answered with, if anybody answers."""
    response = get(gateway, key, path)
    return None if response is None else response.status_code

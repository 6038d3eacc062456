"""A thread of its own for work that would leave threads behind."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_T = TypeVar("_T")


def apart(work: Callable[[], _T]) -> _T:
    """What `work` returns or raises, called in a thread that ends with it.

    Torch's OpenMP threads belong to the thread that they help, and end with it. Once a process has more of
    them than cores, libgomp lets none spin any more while it waits for its part of the next product, and
    decoding, which is made of small products, takes nearly twice as long.
    """
    outcome: Future[_T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised again by whoever waits
            outcome.set_exception(error)

    # A daemon, so that Ctrl-C ends a long preparation at once.
    threading.Thread(target=run, name="apart", daemon=True).start()
    return outcome.result()

"""Single keys, without a return key after them."""

import asyncio
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_MOST = 64


@contextmanager
def listening(pressed: Callable[[str], None]) -> Iterator[None]:
    """Call ``pressed`` with each key, if a terminal is there to type at; it is left as it was."""
    if not sys.stdin.isatty():
        yield
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    loop = asyncio.get_running_loop()

    def read() -> None:
        typed = os.read(terminal, _MOST).decode(errors="replace")
        if not typed:  # the terminal is gone
            loop.remove_reader(terminal)
        for key in typed:
            pressed(key)

    tty.setcbreak(terminal)
    loop.add_reader(terminal, read)
    try:
        yield
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)

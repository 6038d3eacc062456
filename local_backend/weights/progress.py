"""Progress on stderr: a rewritten line on a terminal, each stage's beginning and end in a log file."""

import sys
from collections.abc import Callable
from typing import TextIO

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); done == total closes the stage."""


class StderrProgress:
    """Prints stages as they advance. Not thread-safe; one converter uses it at a time."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._stage = ""
        self._tenth = -1

    def __call__(self, stage: str, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if stage == self._stage and tenth == self._tenth:
            return
        first = stage != self._stage
        self._stage, self._tenth = stage, tenth
        if self._stream.isatty():
            end = "\n" if done >= total else ""
            self._stream.write(f"\r{stage}: {10 * tenth:3d}%{end}")
        elif first or done >= total:
            self._stream.write(f"{stage}: {10 * tenth}%\n")
        self._stream.flush()


def silent(stage: str, done: int, total: int) -> None:
    """A Progress that shows nothing."""

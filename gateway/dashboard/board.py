"""Where the workers of a gateway show each other what they see: one small file each, while somebody watches.

A board in the run directory needs no server, and unlike sockets between workers it has no order of starting
and ending. Without a watcher it costs each worker a look at one file's age, twice a second.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from gateway.dashboard.views import WorkerView

_WATCHED = "watched"
_PATIENCE = 3.0
"""Seconds after which a watcher has left, and a worker that wrote nothing is gone."""


class Board:
    """The board of a gateway with ``workers`` workers, as one of them uses it."""

    def __init__(self, folder: Path, workers: int, wall_time: Callable[[], float]) -> None:
        folder.mkdir(exist_ok=True)
        self.workers = workers
        self._folder = folder
        self._wall_time = wall_time

    def watch(self) -> None:
        """Say that somebody watches, for the next seconds."""
        path, now = self._folder / _WATCHED, self._wall_time()
        path.touch()
        os.utime(path, (now, now))

    @property
    def watched(self) -> bool:
        """Whether somebody watches, at whichever worker."""
        try:
            since = (self._folder / _WATCHED).stat().st_mtime
        except FileNotFoundError:
            return False
        return self._wall_time() - since < _PATIENCE

    def publish(self, view: WorkerView) -> None:
        """Show what this worker sees, unless the disk is full: no page is worth a worker."""
        fresh = self._folder / f"{view.worker}.new"
        with suppress(OSError):
            fresh.write_text(view.model_dump_json(), encoding="utf-8")
            fresh.replace(self._folder / f"{view.worker}.json")

    def others(self, worker: int) -> list[WorkerView]:
        """What the other workers showed within the last seconds; what is older is thrown away."""
        found = []
        for path in self._folder.glob("*.json"):
            if path.stem == str(worker):
                continue
            try:
                view = WorkerView.model_validate_json(path.read_bytes())
            except (FileNotFoundError, ValidationError):  # another watcher threw it away
                continue
            if self._wall_time() - view.at < _PATIENCE:
                found.append(view)
            else:
                path.unlink(missing_ok=True)
        return found

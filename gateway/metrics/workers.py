"""What all workers counted, as the files tell in which prometheus-client has them share it."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.multiprocess import MultiProcessCollector


class OfAllWorkers(MultiProcessCollector):
    """The series of the files in ``folder``, but for one that a worker is just making, which is empty."""

    def __init__(self, folder: str) -> None:
        super().__init__(None, folder)  # type: ignore[no-untyped-call]
        self._folder = Path(folder)

    def collect(self) -> Iterable[Metric]:
        """All families."""
        files = [str(file) for file in self._folder.glob("*.db") if _has_begun(file)]
        merged: Iterable[Metric] = self.merge(files)  # type: ignore[no-untyped-call]
        return merged


def _has_begun(file: Path) -> bool:
    with suppress(FileNotFoundError):  # a worker has ended, and its gauges with it
        return file.stat().st_size > 0
    return False

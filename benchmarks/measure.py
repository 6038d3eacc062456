"""What processes cost: CPU time and resident memory, read from Linux's ``/proc``; and where they run."""

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

now = time.perf_counter  # noqa: TID251  (measuring time is what these programs are for)

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")


@dataclass(frozen=True)
class Cost:
    """CPU seconds spent so far and bytes resident now, of all the processes of one server."""

    cpu_seconds: float
    resident_bytes: int
    processes: int


def family(leader: int) -> dict[int, list[str]]:
    """A process, its descendants and the rest of its session: their fields of ``/proc/PID/stat``, by PID.

    The fields are those after the name; state, which is field 3 in proc(5), comes first.
    """
    everyone = dict(_stats())
    members = {pid for pid, fields in everyone.items() if leader in (pid, int(fields[3]))}
    while True:
        children = {pid for pid, fields in everyone.items() if int(fields[1]) in members} - members
        if not children:
            return {pid: everyone[pid] for pid in members}
        members |= children


def survivors(members: dict[int, list[str]]) -> set[int]:
    """Which of these processes still run: those whose PID still has the same start time."""
    everyone = dict(_stats())
    return {pid for pid, fields in members.items() if pid in everyone and everyone[pid][19] == fields[19]}


def family_cost(leader: int) -> Cost:
    """What a server and all its processes cost together, the children that they have reaped included.

    Pages that processes share are counted in each.
    """
    members = family(leader).values()
    ticks = sum(sum(map(int, fields[11:15])) for fields in members)  # utime, stime, cutime, cstime
    pages = sum(int(fields[21]) for fields in members)
    return Cost(ticks / _TICK, pages * _PAGE, len(members))


def _stats() -> Iterator[tuple[int, list[str]]]:
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text()
        except OSError:  # it ended meanwhile
            continue
        yield int(entry.name), text.rpartition(")")[2].split()


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """The nearest-rank percentile of sorted samples; 0.0 of none."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))]


def median(samples: Sequence[float]) -> float:
    """The median; 0.0 of none."""
    return statistics.median(samples) if samples else 0.0


@dataclass(frozen=True)
class Cores:
    """Which cores carry the load and which the server under test; the same ones where there is only one."""

    load: frozenset[int]
    server: frozenset[int]

    @classmethod
    def split(cls) -> "Cores":
        """One core for the server, the others for the mock and the generator."""
        available = sorted(os.sched_getaffinity(0))
        if len(available) < 2:
            return cls(frozenset(available), frozenset(available))
        return cls(frozenset(available[:-1]), frozenset(available[-1:]))

    @classmethod
    def shared(cls) -> "Cores":
        """Every core for everyone."""
        available = frozenset(os.sched_getaffinity(0))
        return cls(available, available)


@contextmanager
def pinned(cores: frozenset[int]) -> Iterator[None]:
    """Run this process, and what it starts meanwhile, on some cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def machine() -> dict[str, str]:
    """The machine in a few words."""
    model = "unknown"
    for line in (_PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = next(
        line for line in (_PROC / "meminfo").read_text().splitlines() if line.startswith("MemTotal")
    )
    return {
        "cpu": model,
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory.split()[1]) / 2**20:.0f} GiB",
        "kernel": os.uname().release,
        "load before": " ".join(f"{figure:.2f}" for figure in os.getloadavg()),
    }

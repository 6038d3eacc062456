"""The gateway and the faulty upstream as real processes, for tests at the gateway's edges.

Every process writes into a log of its own, which a test that fails to start it shows, and is gone when
its context is left.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml

ROOT = Path(__file__).parents[2]
ADMIN_KEY = "tga-test-admin-key-0123456789"
CLIENT_KEY = "tg-test-client-key-0123456789"
UPSTREAM_KEY = "sk-test-upstream-key-0123456789"
PATIENCE = 60.0
"""Seconds after which something that was waited for counts as failed, on however busy a machine."""
_POLL = 0.02
_ENDED = {"", "Z", "X"}
"""What the kernel calls a process that is gone, or that only nobody has waited for."""
_NO_TLS = False
"""Everything is on loopback, and reading the machine's certificates takes longer than most requests."""

T = TypeVar("T")


def eventually(condition: Callable[[], T], within: float = PATIENCE) -> T:
    """Wait until ``condition`` gives something true, and return that; AssertionError when time is up."""
    until = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < until, f"not within {within} s: {condition}"
        time.sleep(_POLL)
    return found


@dataclass
class Process:
    """A program under test. Its standard output and error go to ``log_file``."""

    popen: "subprocess.Popen[bytes]"
    log_file: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    def log(self) -> str:
        """What it has written so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.popen.send_signal(number)

    def wait(self, within: float = PATIENCE) -> int:
        """Wait for its end and return its exit code."""
        return self.popen.wait(within)

    def stop(self) -> None:
        """End it and everything that it started."""
        children = descendants(self.pid)
        self.popen.terminate()
        try:
            self.popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        for child in children:
            _kill(child)

    def line_with(self, pattern: str, within: float = PATIENCE) -> re.Match[str]:
        """Wait for a line in its log; AssertionError with the log where it ends or time is up."""
        until = time.monotonic() + within
        while (found := re.search(pattern, self.log())) is None:
            ended = self.popen.poll()
            assert ended is None, f"ended with {ended}:\n{self.log()}"
            assert time.monotonic() < until, f"no {pattern!r} in:\n{self.log()}"
            time.sleep(_POLL)
        return found


@contextmanager
def started(argv: list[str], log_file: Path, **environ: str) -> Iterator[Process]:
    """Run ``python argv`` from the repository's root, and stop it in the end."""
    with log_file.open("wb") as log:
        popen = subprocess.Popen(
            [sys.executable, *argv],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environ},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    process = Process(popen, log_file)
    try:
        yield process
    finally:
        process.stop()


def run(*argv: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run ``tidegate argv`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", *argv],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@dataclass
class Upstream(Process):
    """A running faulty upstream."""

    url: str = ""

    def seen(self, request_id: str) -> list[dict[str, Any]]:
        """What it saw of one request of the gateway's: an entry for each attempt."""
        return [seen for seen in self.seen_all() if seen["headers"].get("x-request-id") == request_id]

    def seen_all(self) -> list[dict[str, Any]]:
        """Everything that it saw."""
        seen: list[dict[str, Any]] = httpx.get(f"{self.url}/_seen", timeout=PATIENCE, verify=_NO_TLS).json()
        return seen

    def body(self, request_id: str) -> dict[str, Any]:
        """The body of the only attempt at one request."""
        (seen,) = self.seen(request_id)
        body: dict[str, Any] = json.loads(seen["raw"])
        return body

    def ended(self, request_id: str, within: float = PATIENCE) -> dict[str, Any]:
        """Wait until it is done with the last attempt at a request."""

        def over() -> dict[str, Any] | None:
            seen = self.seen(request_id)
            return seen[-1] if seen and seen[-1]["end"] else None

        found = eventually(over, within)
        assert found is not None
        return found

    def reached(self, request_id: str) -> None:
        """Wait until a request has arrived."""
        eventually(lambda: self.seen(request_id))

    def behave(self, model: str, behaviour: str | None) -> None:
        """Have a model behave as another name says; None takes that back."""
        self._tell("_behave", {"model": model, "as": behaviour})

    def release(self, model: str) -> None:
        """Have those go on who are held at a model, and hold nobody there any more."""
        self._tell("_release", {"model": model})

    def _tell(self, what: str, body: dict[str, Any]) -> None:
        httpx.post(f"{self.url}/{what}", json=body, timeout=PATIENCE, verify=_NO_TLS).raise_for_status()


@contextmanager
def faulty_upstream(folder: Path) -> Iterator[Upstream]:
    """Run a faulty upstream on a free port."""
    argv = ["-m", "tests.kit.faulty_upstream", "--port", "0"]
    with started(argv, folder / "upstream.log") as process:
        url = process.line_with(r'"listening": "([^"]+)"')[1]
        yield Upstream(process.popen, process.log_file, url)


@dataclass
class Gateway(Process):
    """A running ``tidegate serve``."""

    url: str = ""
    config: Path = Path()

    def client(self, key: str | None = CLIENT_KEY, **options: Any) -> httpx.Client:
        """A client that sends ``key``; to be closed."""
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE, verify=_NO_TLS, **options)

    def admin(self) -> httpx.Client:
        """A client for the admin API; to be closed."""
        return self.client(ADMIN_KEY)

    def workers(self) -> list[int]:
        """The ids of its worker processes."""
        return [child for child in children_of(self.pid) if b"gateway.worker" in _command_line(child)]

    def access_log(self) -> list[dict[str, Any]]:
        """The lines of its access log so far, without one that is just being written."""
        whole, _, _ = self.log().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines() if line.startswith('{"time"')]


def settings(upstream_url: str, database: Path, **sections: Any) -> dict[str, Any]:
    """A configuration that passes fake/* on to one upstream, with ``sections`` merged into its own."""
    config: dict[str, Any] = {
        "server": {"port": 0, "ping": "200ms", "drain": "5s", "max_body": "256KiB"},
        "database": f"sqlite:///{database}",
        "admin": {"key": ADMIN_KEY},
        "providers": {"up": {"preset": "vllm", "base_url": f"{upstream_url}/v1", "api_key": UPSTREAM_KEY}},
        "models": {
            "plain": {"route": ["up/fake/ok"]},
            # What an upstream does is seen as it is: nothing is tried again or carried on.
            "fake/*": {"route": ["up/*"], "retries": {"attempts": 1}, "on_stream_break": "error"},
        },
        "keys": [{"name": "client", "key": CLIENT_KEY, "tenant": "acme"}],
    }
    for name, section in sections.items():
        config[name] = {**config.get(name, {}), **section} if isinstance(section, dict) else section
    return config


@contextmanager
def gateway(folder: Path, config: dict[str, Any], *argv: str) -> Iterator[Gateway]:
    """Run a gateway with this configuration until it is ready, and stop it in the end."""
    file = folder / "tidegate.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = ["-m", "gateway", "serve", "--config", str(file), *argv]
    with started(command, folder / "gateway.log") as process:
        url = process.line_with(r"listening on (\S+),")[1]
        process.line_with("Tidegate is ready")
        yield Gateway(process.popen, process.log_file, url, file)


def children_of(pid: int) -> list[int]:
    """The processes that a process started and that still run."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(child) for child in found.split() if alive(int(child))]


def descendants(pid: int) -> list[int]:
    """The processes that a process and its children started."""
    children = children_of(pid)
    return children + [below for child in children for below in descendants(child)]


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and isn't waited for doesn't."""
    return _state(Path(f"/proc/{pid}")) not in _ENDED


def halted(pid: int) -> bool:
    """Whether no thread of a process goes on: SIGSTOP has taken effect, or it has ended."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return True
    return all(_state(thread) in {"T", *_ENDED} for thread in threads)


def _state(process: Path) -> str:
    """A process's state, or a thread's, in the kernel's letters; nothing of one that is gone."""
    try:
        status = (process / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    return status.rpartition(")")[2].split()[0]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)

"""What every program here stands on: the mock upstream and gateways, each on its cores and always ended."""

import argparse
import http.client
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Self

import peers
from load import Target, stream_text, unary_text
from measure import Cores, now, pinned
from mock_upstream import expected_text

HERE = Path(__file__).resolve().parent


class Rig(AbstractContextManager[object]):
    """One mock upstream and any number of gateways in front of it; leaving it ends every process."""

    def __init__(self, cores: Cores, chunk_interval_ms: float = 0.0) -> None:
        self.cores = cores
        self._interval = chunk_interval_ms
        self._stack = ExitStack()
        self._folder = Path()
        self._upstream_port = 0

    def __enter__(self) -> Self:
        """Start the mock."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _leave)
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-bench-")))
        self._upstream_port = peers.free_port()
        command = [sys.executable, str(HERE / "mock_upstream.py"), "--port", str(self._upstream_port)]
        command += ["--chunk-interval-ms", str(self._interval)]
        try:
            with pinned(self.cores.load):
                mock = subprocess.Popen(command, start_new_session=True)
            self._stack.callback(_end, mock)
            wait_answering(self.direct, mock)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End every process."""
        self._stack.close()

    @property
    def direct(self) -> Target:
        """The mock itself, without a gateway."""
        return Target(f"http://127.0.0.1:{self._upstream_port}/v1/chat/completions")

    def start(self, peer: peers.Peer) -> peers.Running:
        """Start a gateway and check what it answers; raises PeerUnavailable."""
        peer.describe()
        folder = self._folder / peer.name
        folder.mkdir()
        setting = peers.Setting(peers.free_port(), peers.free_port(), self._upstream_port, folder)
        with pinned(self.cores.server):
            running = peers.Running(peer, setting)
        self._stack.callback(running.stop)
        running.wait_ready()
        return running

    def load(self, target: Target, *options: str) -> dict[str, Any]:
        """Run the load generator against a target, on the load's cores; gives its outcome."""
        command = [sys.executable, str(HERE / "load.py"), target.url, *options]
        for name, value in target.headers.items():
            command += ["--header", f"{name}: {value}"]
        with pinned(self.cores.load):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            return {
                "seconds": 0.0,
                "completed": 0,
                "errors": {f"load generator: {last}": 1},
                "per_second": 0.0,
            }
        outcome: dict[str, Any] = json.loads(done.stdout)
        return outcome


def verify(target: Target) -> str:
    """What is wrong with the content of a target's answers, whole and streamed; empty if nothing is."""
    for stream in (False, True):
        host, port = target.address
        connection = http.client.HTTPConnection(host, port, timeout=30)
        head, _, body = target.request(stream=stream).partition(b"\r\n\r\n")
        fields = (line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        try:
            connection.request("POST", "/v1/chat/completions", body, dict(fields))
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            return f"{'stream' if stream else 'unary'}: {error!r}"
        finally:
            connection.close()
        if response.status != 200:
            return f"{'stream' if stream else 'unary'}: status {response.status}"
        text = stream_text(answer) if stream else unary_text(answer)
        if text != expected_text():
            return f"{'stream' if stream else 'unary'}: the text differs from the upstream's"
    return ""


def wait_answering(target: Target, process: "subprocess.Popen[bytes]", seconds: float = 15.0) -> None:
    """Wait until a process of ours answers; raises RuntimeError."""
    deadline = now() + seconds
    while verify(target):
        if process.poll() is not None or now() > deadline:
            raise RuntimeError("the mock upstream does not start")
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.05)


def cores_from(arguments: argparse.Namespace) -> Cores:
    """The cores that the command line asks for."""
    return Cores.shared() if arguments.no_pin else Cores.split()


@contextmanager
def announced(what: str) -> Iterator[None]:
    """Say on stderr what is being done, and how long it took."""
    begun = now()
    print(f"{what} ...", end="", file=sys.stderr, flush=True)
    yield
    print(f" {now() - begun:.0f} s", file=sys.stderr, flush=True)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def _leave(number: int, frame: FrameType | None) -> None:
    del frame
    raise SystemExit(128 + number)

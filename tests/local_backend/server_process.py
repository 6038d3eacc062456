"""A model server in a process of its own, on a free port."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

import httpx
import openai

from tests.kit.ports import free_port
from tests.kit.processes import PATIENCE, eventually

ROOT = Path(__file__).parents[2]
_START_SECONDS = 180


class ServerProcess:
    """`python -m local_backend serve` as a context manager; ready when entered, gone when left.

    `processes` of them are started by torchrun; such a group must be terminated and waited for.
    """

    def __init__(self, *arguments: str, processes: int = 1) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._launcher = [sys.executable]
        self._arguments = [*arguments, "--threads", "1"]
        if processes == 1:
            self._arguments += ["--parent-pid", str(os.getpid())]
        else:
            torchrun = ["torch.distributed.run", "--nproc-per-node", str(processes)]
            self._launcher += ["-m", *torchrun, "--master-port", str(free_port())]

    def __enter__(self) -> Self:
        command = [
            *self._launcher,
            "-m",
            "local_backend",
            "serve",
            "--port",
            str(self.port),
            *self._arguments,
        ]
        # A file takes all that is logged; a pipe that nobody reads would halt the server once it is full.
        self._log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=self._log)
        try:
            eventually(lambda: self._is_ready() or self.process.poll() is not None, _START_SECONDS)
            assert self.process.poll() is None, f"the server did not start: {self._logged()}"
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> tuple[int, str]:
        """The exit code and everything that was logged."""
        return self.process.wait(PATIENCE), self._logged()

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0, timeout=PATIENCE)

    def metrics(self) -> dict[str, float]:
        """Every series by its name and labels."""
        lines = self.get("/metrics").text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def metric(self, name: str) -> float:
        return self.metrics()[name]

    def wait_for_open(self, count: int) -> None:
        """Wait until exactly `count` sequences are open; fails when that never happens."""
        eventually(lambda: self.metric("tidegate_local_open_sequences") == count)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=PATIENCE, trust_env=False)

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        """`options` are httpx's; a body of bytes is sent as it is."""
        sent = {"content": body} if isinstance(body, bytes) else {"json": body}
        return httpx.post(self.url + path, **sent, timeout=PATIENCE, trust_env=False, **options)

    def _logged(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def _is_ready(self) -> bool:
        try:
            return self.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

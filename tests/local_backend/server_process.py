"""A model server in a process of its own, on a free port."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

import httpx
import openai

from tests.kit.ports import free_port

ROOT = Path(__file__).parents[2]
_START_SECONDS = 90


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
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise RuntimeError(f"the server did not start: {self.process.communicate()[1]}")
            time.sleep(0.05)
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.communicate()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout: float = 30) -> tuple[int, str]:
        """The exit code and everything that was logged."""
        logged = self.process.communicate(timeout=timeout)[1]
        return self.process.returncode, logged

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="unused", max_retries=0, timeout=60)

    def metrics(self) -> dict[str, float]:
        """Every series by its name and labels."""
        lines = httpx.get(f"{self.url}/metrics", trust_env=False).text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def metric(self, name: str) -> float:
        return self.metrics()[name]

    def wait_for_open(self, count: int, timeout: float = 30) -> None:
        """Wait until exactly `count` sequences are open; fails when that never happens."""
        deadline = time.monotonic() + timeout
        while (found := self.metric("tidegate_local_open_sequences")) != count:
            assert time.monotonic() < deadline, f"{found} sequences are open, expected {count}"
            time.sleep(0.02)

    def post(self, path: str, body: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=60, trust_env=False)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

"""A model server of its own for `bench`, in a process that ends with it."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx

from local_backend.clock import now
from local_backend.errors import BackendError

_START_SECONDS = 600
_POLL_SECONDS = 0.2


@contextmanager
def own_server(arguments: Sequence[str]) -> Iterator[str]:
    """Serve with `arguments` on a free port; the value is the API's base URL. Raises BackendError."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "local_backend", "serve", "--port", str(port), *arguments]
    command += ["--parent-pid", str(os.getpid())]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:  # noqa: S603 - our own command
        try:
            _wait(process, f"http://127.0.0.1:{port}/healthz")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = now() + _START_SECONDS
    pause = threading.Event()
    while now() < deadline:
        if process.poll() is not None:
            raise BackendError("the server did not start; run `python -m local_backend serve` to see why")
        try:
            if httpx.get(url, trust_env=False).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        pause.wait(_POLL_SECONDS)
    raise BackendError(f"the server was not ready within {_START_SECONDS} s")

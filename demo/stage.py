"""The processes of the demo: three upstreams, a Valkey, the gateway, and a Prometheus where there is one."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from demo.acts import WELL
from demo.config import configuration
from tests.kit.processes import ROOT, Gateway, Upstream, faulty_upstream, started
from tests.kit.prometheus import prometheus
from tests.kit.valkey import ValkeyServer, free_port

_MODEL_PATIENCE = 900.0
"""Seconds: the first start of the bundled model downloads it."""


@dataclass(frozen=True)
class Stage:
    """What runs. ``prometheus`` is its URL, None where there is none."""

    upstreams: Mapping[str, Upstream]
    gateway: Gateway
    prometheus: str | None


@contextmanager
def stage(folder: Path, *, port: int = 0, prometheus_port: int = 0, local: bool = True) -> Iterator[Stage]:
    """Start everything, and stop it in the end. Ports that are taken are exchanged for free ones."""
    with ExitStack() as stack:
        upstreams: dict[str, Upstream] = {}
        for name in WELL:
            (folder / name).mkdir()
            upstreams[name] = stack.enter_context(faulty_upstream(folder / name))
        store = ValkeyServer(folder).start()
        stack.callback(store.kill)
        urls = {name: upstream.url for name, upstream in upstreams.items()}
        config = configuration(urls, store.url, folder, _free(port), local=local)
        gateway = stack.enter_context(_gateway(folder, config))
        watching = prometheus(folder, _watching(gateway.url), _free(prometheus_port))
        yield Stage(upstreams, gateway, stack.enter_context(watching))


@contextmanager
def _gateway(folder: Path, config: Mapping[str, object]) -> Iterator[Gateway]:
    file = folder / "gateway.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    with started(["-m", "gateway", "serve", "--config", str(file)], folder / "gateway.log") as process:
        url = process.line_with(r"listening on (\S+),")[1]
        process.line_with("Tidegate is ready", within=_MODEL_PATIENCE)
        yield Gateway(process.popen, process.log_file, url, file)


def _watching(target: str) -> dict[str, Any]:
    """Prometheus's configuration in deploy/, which looks every second instead of every 15."""
    deployed = ROOT / "deploy/prometheus"
    config: dict[str, Any] = yaml.safe_load((deployed / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(deployed / file) for file in config["rule_files"]]
    (job,) = (job for job in config["scrape_configs"] if job["job_name"] == "tidegate")
    job["static_configs"] = [{"targets": [target.removeprefix("http://")]}]
    config["scrape_configs"] = [job]
    return config


def _free(wanted: int) -> int:
    """The port that is wanted, or a free one in its place; 0 wants any."""
    if not wanted:
        return free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
    return wanted

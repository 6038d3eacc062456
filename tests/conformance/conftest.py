"""The servers that the official SDKs are pointed at: the gateway, and the bundled model server itself."""

from dataclasses import dataclass

import openai
import pytest

from tests.kit import processes
from tests.kit.ports import free_port

LOCAL_MODEL = "smollm2-135m-moe"
_LOADING = 120.0
"""Seconds; the first start on a machine also converts the model."""


@dataclass(frozen=True)
class Server:
    """Where an API is, a key for it, and a model that it serves."""

    base_url: str
    api_key: str
    model: str

    def client(self, **options):
        return openai.OpenAI(base_url=self.base_url, api_key=self.api_key, **{"max_retries": 0, **options})


@pytest.fixture(scope="session")
def upstream(tmp_path_factory):
    with processes.faulty_upstream(tmp_path_factory.mktemp("upstream")) as running:
        yield running


@pytest.fixture(scope="session")
def running_gateway(upstream, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    with processes.gateway(folder, processes.settings(upstream.url, folder / "keys.db")) as running:
        yield running


@pytest.fixture(scope="session")
def gateway(running_gateway):
    return Server(f"{running_gateway.url}/v1", processes.CLIENT_KEY, "plain")


@pytest.fixture(scope="session")
def local_backend(tmp_path_factory):
    log = tmp_path_factory.mktemp("local") / "local_backend.log"
    port = free_port()
    with processes.started(["-m", "local_backend", "serve", "--port", str(port)], log) as running:
        running.line_with('"event": "ready"', within=_LOADING)
        yield Server(f"http://127.0.0.1:{port}/v1", "none-needed", LOCAL_MODEL)


@pytest.fixture(params=["gateway", "local_backend"])
def server(request):
    """Each of the servers that answer OpenAI's requests."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def client(server):
    with server.client() as opened:
        yield opened

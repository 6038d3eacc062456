"""One faulty upstream and one gateway in front of it, for all tests that don't break them."""

import pytest

from tests.kit import processes
from tests.kit.chat import PROMPT
from tests.kit.postgres import postgres


@pytest.fixture(scope="session")
def upstream(tmp_path_factory):
    with processes.faulty_upstream(tmp_path_factory.mktemp("upstream")) as running:
        yield running


@pytest.fixture(scope="session")
def postgres_server():
    with postgres() as running:
        yield running


@pytest.fixture(scope="session")
def gateway(upstream, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    origins = {"origins": ["https://app.example.com"]}
    config = processes.settings(upstream.url, folder / "keys.db", server={"cors": origins})
    with processes.gateway(folder, config) as running:
        yield running
        log = running.log()
    assert "Traceback" not in log, log
    for secret in (processes.CLIENT_KEY, processes.ADMIN_KEY, processes.UPSTREAM_KEY, PROMPT):
        assert secret not in log, "a whole session's log holds a secret or a prompt"


@pytest.fixture
def client(gateway):
    with gateway.client() as opened:
        yield opened

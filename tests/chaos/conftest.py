"""A gateway as its own process between its clients and two upstreams that fail as told."""

from functools import partial

import pytest

from tests.chaos.scene import Scene, config
from tests.kit import processes


@pytest.fixture(scope="session")
def bad(tmp_path_factory):
    with processes.faulty_upstream(tmp_path_factory.mktemp("bad")) as running:
        yield running


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    with processes.faulty_upstream(tmp_path_factory.mktemp("good")) as running:
        yield running


@pytest.fixture(scope="session")
def gateway(bad, good, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    with processes.gateway(folder, config(bad.url, good.url, folder)) as running:
        yield running
        assert "Traceback" not in running.log()


@pytest.fixture
def scene(gateway, bad, good):
    """Makes a scene from the name of a family of routes."""
    return partial(Scene, gateway, bad, good)

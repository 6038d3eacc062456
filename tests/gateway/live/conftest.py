"""Gateways of their own for tests that stop, kill or reconfigure them."""

from contextlib import contextmanager

import pytest

from tests.kit import processes


@pytest.fixture
def launch(upstream, tmp_path):
    """Start a gateway with other settings; it is stopped in the end."""

    @contextmanager
    def run(*argv, **sections):
        config = processes.settings(upstream.url, tmp_path / "keys.db", **sections)
        with processes.gateway(tmp_path, config, *argv) as running:
            yield running

    return run

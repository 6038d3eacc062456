"""Databases of both kinds, empty or as the newest migration leaves them."""

import pytest

from gateway.stores.database import open_database
from gateway.stores.migration import migrate


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path):
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/tidegate.db"
    return request.getfixturevalue("postgres_server").new_database()


@pytest.fixture
async def engines(database_url):
    """Two engines on one database, as two workers have them."""
    opened = [open_database(database_url) for _ in range(2)]
    await migrate(opened[0])
    yield opened
    for engine in opened:
        await engine.dispose()

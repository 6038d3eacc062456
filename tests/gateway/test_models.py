"""GET /v1/models/{id}, over a worker's real parts."""

import httpx
import pytest
from fastapi import FastAPI

from gateway.api import models, problems
from tests.gateway.test_serving import Bench
from tests.kit.processes import CLIENT_KEY

HEADERS = {"authorization": f"Bearer {CLIENT_KEY}"}
KEY = {"name": "client", "key": CLIENT_KEY, "tenant": "acme", "models": ["fake/mine"]}


@pytest.mark.parametrize(("asked", "status", "found"), [("fake/mine", 200, 1), ("fake/yours", 404, 0)])
async def test_only_a_name_that_the_key_may_use_is_looked_for(tmp_path, monkeypatch, asked, status, found):
    bench = Bench(tmp_path)
    bench.write(keys=[KEY])
    serving = await bench.serving()
    find, looked_for = serving.catalogue.find, []
    monkeypatch.setattr(serving.catalogue, "find", lambda name: looked_for.append(name) or find(name))
    app = FastAPI()
    problems.install(app)
    app.include_router(models.router(serving))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://gateway", headers=HEADERS
    ) as client:
        assert (await client.get(f"/v1/models/{asked}")).status_code == status
    assert looked_for == [asked] * found
    await bench.close(serving)

"""What the bundled model server is told of who calls, and that nobody else is."""

import httpx
import pytest
from starlette.requests import Request

from gateway.clock import wall_time
from gateway.providers.caller import caller_headers
from gateway.providers.dialect import Account
from gateway.providers.openai import OpenAIUpstream
from local_backend.serve.caller import PRIORITY, TENANT, read_caller
from policies.errors import UpstreamBusy
from tests.kit.upstream import make_call

WEIGHTS = {"free": 1.0, "pro": 4.0, "vast": 1e9}


@pytest.mark.parametrize(("tier", "priority"), [("free", -1), ("pro", -4), ("vast", -1000)])
def test_a_tier_that_weighs_more_goes_first(tier, priority):
    told = caller_headers(WEIGHTS.__getitem__)(make_call(tenant="acme", tier=tier))
    assert told == {TENANT: "acme", PRIORITY: str(priority)}


@pytest.mark.parametrize("tenant", ["acme", "Müller & Söhne", "a\r\nx-evil: 1", "x" * 1000, ""])
def test_the_model_server_understands_every_tenant(tenant):
    told = caller_headers(WEIGHTS.__getitem__)(make_call(tenant=tenant, tier="free"))
    headers = [(name.encode(), value.encode("ascii")) for name, value in told.items()]
    caller = read_caller(Request({"type": "http", "headers": headers}))
    assert bool(caller.tenant) == bool(tenant)


async def test_others_are_not_told():
    seen = []

    async def answer(request):
        seen.append(request.headers)
        return httpx.Response(503, json={})

    for headers in (None, caller_headers(WEIGHTS.__getitem__)):
        upstream = OpenAIUpstream(
            Account("up", "http://upstream.test/v1"),
            "m",
            httpx.MockTransport(answer),
            connect_timeout=1,
            wall_time=wall_time,
            caller_headers=headers,
        )
        with pytest.raises(UpstreamBusy):
            async with upstream(make_call(tenant="acme", tier="pro")):
                pass
    assert TENANT not in seen[0]
    assert PRIORITY not in seen[0]
    assert (seen[1][TENANT], seen[1][PRIORITY]) == ("acme", "-4")

import httpx
import pytest

from gateway.providers.statuspage import status_reader
from policies.errors import UpstreamUnavailable

PAGE = "https://status.example.com"


def reader(answer):
    return status_reader(PAGE, httpx.MockTransport(answer))


async def test_the_indicator_is_read_where_statuspage_puts_it():
    def answer(request):
        assert str(request.url) == f"{PAGE}/api/v2/status.json"
        return httpx.Response(200, json={"status": {"indicator": "major", "description": "Partial outage"}})

    assert await reader(answer)() == "major"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"status": "up"}', b'{"status": {}}'])
async def test_another_kind_of_page_is_no_hint(body):
    with pytest.raises(UpstreamUnavailable, match=r"status\.example\.com"):
        await reader(lambda _: httpx.Response(200, content=body))()


async def test_a_page_that_is_down_is_no_hint():
    def answer(request):
        raise httpx.ConnectError("refused")

    with pytest.raises(UpstreamUnavailable):
        await reader(answer)()

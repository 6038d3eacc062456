import httpx

from gateway.providers.dialect import Account
from gateway.providers.warmup import warm_up
from tests.kit.virtual_time import LoopClock

SECRET = (("authorization", "Bearer sk-secret"),)


async def test_every_origin_is_reached_once_without_credentials():
    seen = []

    async def answer(request):
        seen.append(request)
        if request.url.host == "broken.example":
            raise httpx.ConnectError("no route")
        return httpx.Response(401)

    addresses = [
        "https://api.example.com/v1",
        "https://api.example.com/v2",
        "https://broken.example/v1",
        "http://10.0.0.5:8000/v1",
        "http://127.0.0.1:9000/v1",
        "http://localhost:9000/v1",
        "http://[::1]:9000/v1",
    ]
    accounts = [Account(f"a{at}", address, SECRET) for at, address in enumerate(addresses)]
    await warm_up(accounts, httpx.MockTransport(answer), LoopClock())
    reached = {(request.method, str(request.url)) for request in seen}
    assert reached == {
        ("HEAD", "https://api.example.com/"),
        ("HEAD", "https://broken.example/"),
        ("HEAD", "http://10.0.0.5:8000/"),
    }
    assert len(seen) == 3
    assert all("authorization" not in request.headers for request in seen)

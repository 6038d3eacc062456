"""Whether HTTP/2 to upstreams would help: the gateway's transport against httpx's HTTP/2, over TLS to nginx.

Run: pip install h2, then PYTHONPATH=. python benchmarks/http2.py. It takes nginx and openssl from the PATH.
CPU is that of the process that asks, which is what a gateway has to share among its calls. "Cold" is the time
until each of 32 calls at once has its answer, over no connection yet.
"""

import argparse
import asyncio
import contextlib
import math
import os
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from gateway.clock import SystemClock
from gateway.providers.transport import EnvironmentTransport
from tests.kit import processes

CLOCK = SystemClock()
UNARY = "ok:tokens=20"
STREAM = "ok:tokens=64,gap=0.002"
AT_ONCE = 32

NGINX = """
daemon off; error_log stderr; pid {folder}/nginx.pid; worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    upstream behind {{ server {behind}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
        location / {{
            proxy_pass http://behind; proxy_buffering off;
            proxy_http_version 1.1; proxy_set_header Connection "";
        }}
    }}
}}
"""


CERTIFICATE = [
    *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
    *("-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
]


@dataclass(frozen=True)
class Measured:
    """Of one way to ask: times in seconds, CPU for each call."""

    cpu: float
    median: float
    p99: float


@contextlib.contextmanager
def nginx(folder: Path, behind: str) -> Iterator[str]:
    """TLS and both versions in front of ``behind``; the base URL."""
    subprocess.run(
        [*CERTIFICATE, "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, behind=behind, port=port), encoding="utf-8")
    with subprocess.Popen(
        ["nginx", "-c", str(config), "-p", str(folder)], stderr=subprocess.DEVNULL
    ) as server:
        try:
            processes.eventually(lambda: _listens(port))
            yield f"https://127.0.0.1:{port}"
        finally:
            server.terminate()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


async def ask(transport: httpx.AsyncBaseTransport, url: str, model: str) -> tuple[float, str]:
    """One call, read to its end: how long that took, and the version."""
    body = {"model": model, "stream": model == STREAM, "messages": [{"role": "user", "content": "hi"}]}
    began = CLOCK.now()
    request = httpx.Request("POST", f"{url}/v1/chat/completions", json=body)
    response = await transport.handle_async_request(request)
    async for _ in response.aiter_raw():
        pass
    await response.aclose()
    assert response.status_code == httpx.codes.OK
    return CLOCK.now() - began, response.extensions["http_version"].decode()


async def measure(transport: httpx.AsyncBaseTransport, url: str, model: str, calls: int) -> Measured:
    """``calls`` of them, AT_ONCE at a time, over connections that are open."""
    left = iter(range(calls))
    took: list[float] = []

    async def client() -> None:
        took.extend([(await ask(transport, url, model))[0] for _ in left])

    began = time.process_time()
    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    cpu = (time.process_time() - began) / calls
    took.sort()
    return Measured(cpu, took[len(took) // 2], took[math.ceil(0.99 * len(took)) - 1])


@contextlib.asynccontextmanager
async def opened(make: Callable[[], httpx.AsyncBaseTransport]) -> AsyncIterator[httpx.AsyncBaseTransport]:
    """A transport, closed in the end."""
    transport = make()
    try:
        yield transport
    finally:
        await transport.aclose()


async def compare(url: str, calls: int) -> None:
    """Print the table."""
    context = ssl.create_default_context()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    ways: dict[str, Callable[[], httpx.AsyncBaseTransport]] = {
        "the gateway's, HTTP/1.1": EnvironmentTransport,
        "httpx, HTTP/1.1": lambda: httpx.AsyncHTTPTransport(verify=context, limits=limits),
        "httpx, HTTP/2": lambda: httpx.AsyncHTTPTransport(
            verify=context, limits=limits, http1=False, http2=True
        ),
    }
    print("| transport | version | cold, 32 at once | unary: CPU | p50 | p99 | 64 chunks: CPU | p50 | p99 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, make in ways.items():
        async with opened(make) as transport:
            began = CLOCK.now()
            found = await asyncio.gather(*(ask(transport, url, UNARY) for _ in range(AT_ONCE)))
            cold = CLOCK.now() - began
            unary = await measure(transport, url, UNARY, calls)
            stream = await measure(transport, url, STREAM, calls // 4)
        cells = [f"{cold * 1e3:.0f} ms"]
        for each in (unary, stream):
            cells += [f"{each.cpu * 1e6:.0f} us", f"{each.median * 1e3:.1f} ms", f"{each.p99 * 1e3:.1f} ms"]
        print(f"| {name} | {found[0][1]} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Start what is asked, and ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        processes.faulty_upstream(Path(name)) as upstream,
        nginx(Path(name), upstream.url.removeprefix("http://")) as url,
    ):
        os.environ["SSL_CERT_FILE"] = f"{name}/cert.pem"
        asyncio.run(compare(url, arguments.calls))


if __name__ == "__main__":
    main()

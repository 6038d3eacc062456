"""What the layers cost: CPU time of a call through the stack, with the network left out.

    python benchmarks/layers.py [--profile unary|stream] [--traces]

Four services answer the same call from the same canned bytes: the provider's adapter alone, that with
only the two observing layers around it, that with admission between these two, and the whole stack as
gateway/stack.py builds it. With --traces there is a fifth: the whole stack and a trace of each call, exported
to a server that takes nothing. The least of several repetitions counts, since everything else on the machine
can only add to it.
"""

import argparse
import asyncio
import cProfile
import gc
import logging
import pstats
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import httpx
import uvloop
from mock_upstream import MODEL, stream_frames, unary_reply

from gateway.clock import SystemClock, system_random, wall_time
from gateway.estimates import TokenEstimates
from gateway.metrics import Metrics
from gateway.parts import Parts
from gateway.providers.accounts import accounts_of
from gateway.providers.openai import OpenAIUpstream
from gateway.queues import Queues
from gateway.roads import Roads
from gateway.settings import Model, Provider, Target
from gateway.stack import Stacks
from gateway.upstreams import Upstreams
from policies.admission import Admission
from policies.observe import ObserveAttempts, ObserveCalls
from policies.service import Call, Operation, Reply, Service

if TYPE_CHECKING:
    from gateway.tracing import Tracing

REPETITIONS = 7
_MESSAGE = re.compile(rb"data: .*?\n\n")
CALLS = {False: 3000, True: 300}


class CannedStream(httpx.AsyncByteStream):
    """Parts of a body, each as its own read."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part


class CannedTransport(httpx.AsyncBaseTransport):
    """Answers at once, without a network."""

    def __init__(self) -> None:
        self._body = unary_reply().partition(b"\r\n\r\n")[2]
        self._frames = [_MESSAGE.findall(frame)[0] for frame in stream_frames(usage=True)]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        streamed = b'"stream":true' in request.content
        kind = b"text/event-stream" if streamed else b"application/json"
        body = CannedStream(self._frames if streamed else [self._body])
        return httpx.Response(200, headers=[(b"content-type", kind)], stream=body, request=request)


def whole(roads: Roads, parts: Parts, tracing: "Tracing | None" = None) -> Service:
    """The whole stack."""
    stacks = Stacks(roads, parts, TokenEstimates(), tracing=tracing)
    catalogue = stacks.catalogue({MODEL: Model(route=((Target("mock", MODEL),),))})
    entry = catalogue.find(MODEL)
    if entry is None:
        raise LookupError(MODEL)
    return entry.service


def traced(service: Service, tracing: "Tracing") -> Service:
    """What the gateway does around a call that has a trace."""
    scope = {"method": "POST", "path": "/v1/chat/completions", "headers": []}

    @asynccontextmanager
    async def call_traced(call: Call) -> AsyncIterator[Reply]:
        call.trace = trace = tracing.begin(scope, call.arrived)
        async with service(call) as reply:
            yield reply
        trace.finish("req", 200, "ok", call=call, reply=reply, first_event=0.1)

    return call_traced


def services(collector: str | None) -> dict[str, Service]:
    """The adapter alone, observed, and inside the whole stack; the last again with traces."""
    provider = Provider(preset="openai", base_url="http://upstream.test/v1")
    parts = Parts(SystemClock(), wall_time, system_random(), Metrics(), CannedTransport())
    accounts = accounts_of({"mock": provider}, {})
    roads = Roads({"mock": provider}, accounts, Upstreams(parts), Queues(parts))
    adapter = OpenAIUpstream(
        accounts["mock"][0], MODEL, parts.transport, connect_timeout=5, wall_time=wall_time
    )
    attempts = ObserveAttempts(adapter, upstream="mock", model=MODEL, clock=parts.clock, meter=parts.meter)
    observed = ObserveCalls(attempts, clock=parts.clock, meter=parts.meter)
    seating = roads.queues.before(roads.upstreams)
    admission = Admission(attempts, seating, estimates=TokenEstimates())
    admitted = ObserveCalls(admission, clock=parts.clock, meter=parts.meter)
    found = {"adapter": adapter, "observed": observed, "admitted": admitted, "stack": whole(roads, parts)}
    if collector is not None:
        from gateway.tracing import Tracing  # noqa: PLC0415 - needs the extra otel

        tracing = Tracing(collector, parts.clock, wall_time)
        logging.disable()  # it says that the server takes nothing
        found["traced"] = traced(whole(roads, tracing.around(parts), tracing), tracing)
    return found


@contextmanager
def collector() -> Iterator[str]:
    """A server in a process of its own, that refuses all that it is sent."""
    argv = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        line = server.stdout.readline() if server.stdout else ""
        try:
            yield f"http://127.0.0.1:{line.split(' port ')[1].split()[0]}"
        finally:
            server.terminate()


async def run(service: Service, *, stream: bool, calls: int) -> None:
    """Make ``calls`` calls one after another."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    for _ in range(calls):
        arrived = SystemClock().now()
        call = Call("req", Operation.CHAT, MODEL, body, stream=stream, route=MODEL, arrived=arrived)
        async with service(call) as reply:
            async for _ in reply.events:
                pass


async def measure(found: dict[str, Service], *, stream: bool) -> dict[str, float]:
    """The least CPU microseconds a call, by service."""
    calls = CALLS[stream]
    least = dict.fromkeys(found, float("inf"))
    for _ in range(REPETITIONS):
        for name, service in found.items():
            await run(service, stream=stream, calls=calls // 20)
            began = time.process_time()
            await run(service, stream=stream, calls=calls)
            least[name] = min(least[name], (time.process_time() - began) / calls * 1e6)
    return least


async def main(profiled: str | None, collector: str | None) -> None:
    """Measure both kinds of calls, or profile one of them."""
    sys.set_asyncgen_hooks(firstiter=None)  # as a worker does
    found = services(collector)
    if profiled is not None:
        stream = profiled == "stream"
        profile = cProfile.Profile()
        profile.enable()
        await run(found["stack"], stream=stream, calls=CALLS[stream])
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
        return
    for kind, stream in (("unary", False), ("64-chunk stream", True)):
        least = await measure(found, stream=stream)
        shown = ", ".join(f"{name} {micros:.1f}" for name, micros in least.items())
        print(f"{kind}: {shown} us a call; layers beyond observing {least['stack'] - least['observed']:.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", choices=["unary", "stream"])
    parser.add_argument("--traces", action="store_true")
    arguments = parser.parse_args()
    gc.freeze()
    gc.set_threshold(20_000)
    with (
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        collector() if arguments.traces else nullcontext() as url,
    ):
        runner.run(main(arguments.profile, url))

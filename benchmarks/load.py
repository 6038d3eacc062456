"""Load an OpenAI-compatible server: closed loop to find what it can do, open loop to time it.

Closed loop: every connection sends its next request when the last one is answered, for some seconds; then
nothing new is sent and what is under way is waited for. Generators that cut the last requests off charge
a slow server for work that they never count, which matters where 32 requests are a large part of all that
it answers.

Open loop: requests leave at a fixed rate whether or not the earlier ones are answered, and each is timed
from when it was due, so that a server's pauses are not hidden by the generator's own waiting
("coordinated omission").
"""

import argparse
import asyncio
import ctypes
import json
import os
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools
import uvloop
from measure import now, percentile

PROMPT = "Say something about tides, in about sixty words, for somebody who has never seen the sea."
DRAIN_SECONDS = 120.0


@dataclass(frozen=True)
class Target:
    """Where to send chat completions, and with which headers."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    model: str = "mock-model"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or 80

    def request(self, *, stream: bool, seed: int | None = None) -> bytes:
        """One HTTP request, ready to be written."""
        document: dict[str, object] = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": "You are brief."},
                {"role": "user", "content": PROMPT},
            ],
            "max_tokens": 256,
        }
        if seed is not None:
            document["seed"] = seed
        if stream:
            document |= {"stream": True, "stream_options": {"include_usage": True}}
        body = json.dumps(document).encode()
        parts = urlsplit(self.url)
        fields = {
            "host": parts.netloc,
            "content-type": "application/json",
            "accept": "text/event-stream" if stream else "application/json",
            "content-length": str(len(body)),
            **self.headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"POST {parts.path} HTTP/1.1\r\n{head}\r\n".encode() + body


@dataclass
class Answer:
    """What came back for one request; times are seconds on :func:`measure.now`."""

    due: float
    status: int = 0
    first_byte: float = 0.0
    done: float = 0.0
    body: list[bytes] = field(default_factory=list)
    error: str = ""

    def fault(self, *, stream: bool) -> str:
        """Why the answer isn't the one asked for; empty if it is."""
        if self.error or self.status != 200:
            return self.error or f"status {self.status}"
        tail = b"".join(self.body[-2:])
        if stream:
            return "" if tail.rstrip().endswith(b"data: [DONE]") else "stream without [DONE]"
        return "" if b'"usage"' in tail else "body without usage"


def stream_text(body: bytes) -> str:
    """The text of a streamed chat completion: its content deltas, joined."""
    text: list[str] = []
    for line in body.splitlines():
        if not line.startswith(b"data: {"):
            continue
        choices = json.loads(line[6:]).get("choices", [])
        text.extend(choice.get("delta", {}).get("content") or "" for choice in choices)
    return "".join(text)


def unary_text(body: bytes) -> str:
    """The text of a chat completion that came whole."""
    return str(json.loads(body)["choices"][0]["message"]["content"])


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection that carries one request at a time."""

    def __init__(self, released: Callable[["Connection"], None]) -> None:
        self._released = released
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: Answer | None = None
        self._finished: Callable[[Answer], None] | None = None

    @property
    def open(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None

    def send(self, request: bytes, due: float, finished: Callable[[Answer], None]) -> None:
        """Send a request; ``finished`` is called with its answer, whatever becomes of it."""
        self._answer, self._finished = Answer(due), finished
        if self._transport is None:
            self._finish("connection closed")
        else:
            self._transport.write(request)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request that was under way, if any."""
        self._transport = None
        self._finish(f"connection lost: {exc or 'closed by the server'}")

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which calls the ``on_*`` methods below."""
        answer = self._answer
        if answer is not None and not answer.first_byte:
            answer.first_byte = now()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._finish(f"not HTTP: {error}")
            self.close()

    def on_body(self, body: bytes) -> None:
        """Gather the body."""
        if self._answer is not None:
            self._answer.body.append(body)

    def on_message_complete(self) -> None:
        """Hand the answer over."""
        if self._answer is not None:
            self._answer.status = self._parser.get_status_code()
        if not self._parser.should_keep_alive():
            self.close()
            self._transport = None
        self._finish("")

    def _finish(self, error: str) -> None:
        answer, finished = self._answer, self._finished
        self._answer = self._finished = None
        if answer is None or finished is None:
            return
        answer.error, answer.done = error, now()
        finished(answer)
        self._released(self)


@dataclass
class Outcome:
    """What one run of the generator saw; latencies are sorted milliseconds of the requests that succeeded."""

    seconds: float = 0.0
    completed: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    latencies_ms: list[float] = field(default_factory=list)

    def record(self, answer: Answer, *, stream: bool) -> None:
        """Count one answer."""
        fault = answer.fault(stream=stream)
        if fault:
            self.errors[fault] = self.errors.get(fault, 0) + 1
        else:
            self.completed += 1
            self.latencies_ms.append((answer.done - answer.due) * 1e3)

    def summary(self) -> dict[str, object]:
        """The outcome in figures."""
        ordered = sorted(self.latencies_ms)
        document = asdict(self)
        del document["latencies_ms"]
        return document | {
            "per_second": self.completed / self.seconds if self.seconds else 0.0,
            "p50_ms": percentile(ordered, 0.50),
            "p99_ms": percentile(ordered, 0.99),
        }


class Generator:
    """Sends one kind of request over a fixed set of connections, reopening those that the server closes."""

    def __init__(self, target: Target, connections: int, *, stream: bool) -> None:
        self._target = target
        self._stream = stream
        self._request = target.request(stream=stream)
        self._size = connections
        self._idle: list[Connection] = []
        self._due: deque[float] = deque()
        self._under_way = 0
        self._reopening: set[asyncio.Task[None]] = set()
        self._drained = asyncio.Event()
        self._refill: Callable[[], None] = lambda: None
        self.outcome = Outcome()

    async def open(self) -> None:
        """Open the connections."""
        await asyncio.gather(*(self._connect() for _ in range(self._size)))

    def close(self) -> None:
        """Close the idle connections."""
        for connection in self._idle:
            connection.close()

    async def closed_loop(self, seconds: float, requests: int | None = None) -> Outcome:
        """Keep every connection busy for some seconds, or until so many requests are sent; then drain."""
        begun = now()
        sent = 0

        def refill() -> None:
            nonlocal sent
            while self._idle and now() - begun < seconds and (requests is None or sent < requests):
                sent += 1
                self._send(now())

        self._refill = refill
        refill()
        await self._drain(seconds)
        self.outcome.seconds = now() - begun
        return self.outcome

    async def open_loop(self, seconds: float, rate: float) -> Outcome:
        """Send ``rate`` requests a second, evenly spaced, for some seconds; then drain."""
        total = max(1, int(seconds * rate))
        begun = now()
        scheduled = 0
        over = asyncio.Event()

        def tick() -> None:
            nonlocal scheduled
            os.read(timer, 8)
            while scheduled < total and begun + scheduled / rate <= now():
                self._due.append(begun + scheduled / rate)
                scheduled += 1
            refill()
            if scheduled == total:
                over.set()

        def refill() -> None:
            while self._due and self._idle:
                self._send(self._due.popleft())

        self._refill = refill
        timer = periodic_timer(1 / rate)
        loop = asyncio.get_running_loop()
        loop.add_reader(timer, tick)
        try:
            await over.wait()
        finally:
            loop.remove_reader(timer)
            os.close(timer)
        await self._drain(0)
        self.outcome.seconds = now() - begun
        return self.outcome

    def _send(self, due: float) -> None:
        self._under_way += 1
        self._drained.clear()
        self._idle.pop().send(self._request, due, self._finished)

    def _finished(self, answer: Answer) -> None:
        self.outcome.record(answer, stream=self._stream)
        self._under_way -= 1

    def _released(self, connection: Connection) -> None:
        if connection.open:
            self._idle.append(connection)
        else:
            task = asyncio.ensure_future(self._reconnect())
            self._reopening.add(task)
            task.add_done_callback(self._reopening.discard)
        self._refill()
        if not self._under_way:
            self._drained.set()

    async def _connect(self) -> None:
        host, port = self._target.address
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: Connection(self._released), host, port)
        self._idle.append(connection)

    async def _reconnect(self) -> None:
        try:
            await self._connect()
        except OSError as error:
            fault = f"cannot connect: {error}"
            self.outcome.errors[fault] = self.outcome.errors.get(fault, 0) + 1
        else:
            self._refill()

    async def _drain(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds + DRAIN_SECONDS):
                while self._under_way or self._due:
                    await self._drained.wait()
                    self._drained.clear()
        except TimeoutError:
            self.outcome.errors["never answered"] = self._under_way + len(self._due)


def periodic_timer(interval: float) -> int:
    """A Linux timer file descriptor that becomes readable every ``interval`` seconds.

    Event loops round their timers up to a millisecond, which is coarser than what is timed here.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    monotonic, nonblocking = 1, os.O_NONBLOCK
    descriptor: int = libc.timerfd_create(monotonic, nonblocking)
    seconds, nanoseconds = divmod(max(1, int(interval * 1e9)), 1_000_000_000)
    every = (ctypes.c_long * 4)(seconds, nanoseconds, seconds, nanoseconds)
    if descriptor < 0 or libc.timerfd_settime(descriptor, 0, every, None) < 0:
        raise OSError(ctypes.get_errno(), "timerfd")
    return descriptor


async def generate(arguments: argparse.Namespace) -> dict[str, object]:
    """Run the generator as the command line asks."""
    headers = dict(item.split(": ", 1) for item in arguments.header)
    generator = Generator(Target(arguments.url, headers), arguments.connections, stream=arguments.stream)
    await generator.open()
    if arguments.rate:
        outcome = await generator.open_loop(arguments.seconds, arguments.rate)
    else:
        outcome = await generator.closed_loop(arguments.seconds, arguments.requests)
    generator.close()
    return outcome.summary()


def main() -> None:
    """Read the arguments, generate the load and print the outcome as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="of chat completions, such as http://127.0.0.1:8080/v1/chat/completions")
    parser.add_argument("--header", action="append", default=[], metavar="NAME: VALUE")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--requests", type=int, help="stop sending after so many (closed loop)")
    parser.add_argument("--rate", type=float, help="requests a second: open loop")
    parser.add_argument("--stream", action="store_true")
    print(json.dumps(uvloop.run(generate(parser.parse_args()))))


if __name__ == "__main__":
    main()

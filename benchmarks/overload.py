"""Two gateways before one upstream, offered twice what it can serve: how much of it is used, what is refused.

The upstream serves so many calls at once and answers 503 to the rest. Neither gateway knows the limit, nor of
the other gateway. Clients come at random moments, wait a while for their first token and then leave; who is
refused leaves too. Counted after the gateways had time to find the limit:

    goodput   whole and exact answers a second, as a share of what the upstream can serve
    rejected  attempts that the upstream refused, as a share of those it saw

python benchmarks/overload.py
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import peers
import uvloop
from load import Answer, Connection, Target, stream_text
from measure import median, now, percentile
from rig import announced

ROOT = Path(__file__).resolve().parent.parent
GATEWAYS = 2
TOKENS = 20
PATIENCE = (5.0, 15.0)
GOOD_ENOUGH, FEW_ENOUGH = 0.90, 0.03


@dataclass
class Figures:
    """What one product did; times in seconds, shares from 0 to 1."""

    gateway: str
    version: str
    slots: int
    capacity: float
    offered: float
    seconds: float
    goodput: float = 0.0
    rejected: float = 0.0
    attempts: int = 0
    whole: int = 0
    cut: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    wait_p50: float = 0.0
    wait_p95: float = 0.0


class Client(Connection):
    """A connection that tells when the first content came; comments aren't content."""

    def __init__(self) -> None:
        super().__init__(lambda _: None)
        self.first_content: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def on_body(self, body: bytes) -> None:
        """Gather the body."""
        super().on_body(body)
        if not self.first_content.done() and b"data:" in body:
            self.first_content.set_result(now())


@dataclass
class Visit:
    """What became of one client."""

    came: float
    outcome: str
    left: float
    waited: float = 0.0


async def visit(target: Target, request: bytes, patience: float, whole: str) -> Visit:
    """Ask once, and leave when no content came in time."""
    came = now()
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[Answer] = loop.create_future()
    try:
        _, client = await loop.create_connection(Client, *target.address)
    except OSError:
        return Visit(came, "no connection", now())
    try:
        client.send(request, came, answered.set_result)
        await asyncio.wait({answered, client.first_content}, timeout=patience, return_when="FIRST_COMPLETED")
        if not answered.done() and not client.first_content.done():
            return Visit(came, "left", now())
        answer = await answered
        return Visit(came, judge(answer, whole), now(), (answer.done if answer.error else now()) - came)
    finally:
        client.close()


def judge(answer: Answer, whole: str) -> str:
    """Whether an answer is whole, an honest error, or cut and called whole."""
    body = b"".join(answer.body)
    if answer.error:
        return answer.error.partition(":")[0]
    if answer.status != 200:
        return f"status {answer.status}"
    if b'"error"' in body:
        return "error in the stream"
    return "whole" if not answer.fault(stream=True) and stream_text(body) == whole else "CUT"


class Upstream:
    """The faulty upstream of the tests, told to have ``slots``."""

    def __init__(self, slots: int, gap: float) -> None:
        self.slots = slots
        self._behaviour = f"slots:limit={slots},tokens={TOKENS},gap={gap}"
        self.port = peers.free_port()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it as a process."""
        command = [sys.executable, "-m", "tests.kit.faulty_upstream", "--port", str(self.port)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        try:
            if process.stdout is None or b"listening" not in process.stdout.readline():
                raise RuntimeError("the upstream does not start")
            self._control("POST", "_behave", {"model": Target("").model, "as": self._behaviour})
            yield
        finally:
            process.kill()
            process.wait()

    def forget(self) -> None:
        """Forget what it has seen."""
        self._control("DELETE", "_seen")

    def seen(self) -> list[dict[str, Any]]:
        """Every request that it saw."""
        found: list[dict[str, Any]] = self._control("GET", "_seen")
        return found

    def answer(self) -> str:
        """The text that it answers with."""
        target = Target(f"http://127.0.0.1:{self.port}/v1/chat/completions")
        _, _, body = target.request(stream=True).partition(b"\r\n\r\n")
        request = urllib.request.Request(target.url, data=body, method="POST")
        with urllib.request.urlopen(request, timeout=30) as response:
            return stream_text(response.read())

    def _control(self, method: str, path: str, body: object = None) -> Any:
        url = f"http://127.0.0.1:{self.port}/{path}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())


async def crowd(
    targets: list[Target], rate: float, seconds: float, whole: str, rng: random.Random
) -> list[Visit]:
    """Clients at random moments, taking turns between the gateways, until ``seconds`` are over."""
    requests = [target.request(stream=True) for target in targets]
    visits: set[asyncio.Task[Visit]] = set()
    begun = due = now()
    while due < begun + seconds:
        await asyncio.sleep(max(0.0, due - now()))  # noqa: TID251  (clients have no clock but the machine's)
        which = len(visits) % len(targets)
        visits.add(asyncio.create_task(visit(targets[which], requests[which], rng.uniform(*PATIENCE), whole)))
        due += rng.expovariate(rate)
    return list(await asyncio.gather(*visits))


def measure(peer: peers.Peer, arguments: argparse.Namespace) -> Figures:
    """Run one product; raises PeerUnavailable."""
    version = peer.describe()
    upstream = Upstream(arguments.slots, arguments.gap)
    with ExitStack() as stack:
        stack.enter_context(upstream.running())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-overload-")))
        running = []
        for number in range(GATEWAYS):
            home = folder / str(number)
            home.mkdir()
            gateway = peers.Running(
                peer, peers.Setting(peers.free_port(), peers.free_port(), upstream.port, home)
            )
            stack.callback(gateway.stop)
            running.append(gateway)
        for gateway in running:
            gateway.wait_ready()
        whole = upstream.answer()
        service = upstream.seen()[-1]
        # What it can serve by its own account, on an idle machine: slots / seconds a call.
        capacity = arguments.slots / (service["ended"] - service["arrived"])
        upstream.forget()
        rate = arguments.load * capacity
        begun = now()
        visits = uvloop.run(
            crowd(
                [gateway.target for gateway in running],
                rate,
                arguments.settle + arguments.seconds,
                whole,
                random.Random(arguments.seed),
            )
        )
        seen = upstream.seen()
    window = (begun + arguments.settle, begun + arguments.settle + arguments.seconds)
    figures = Figures(peer.title, version, arguments.slots, capacity, rate, arguments.seconds)
    attempts = [one for one in seen if window[0] <= one["arrived"] < window[1]]
    came = [one for one in visits if window[0] <= one.came < window[1]]
    waits = sorted(one.waited for one in came if one.outcome == "whole")
    figures.attempts = len(attempts)
    figures.rejected = sum(one["status"] == 503 for one in attempts) / max(1, len(attempts))
    figures.whole = sum(one.outcome == "whole" and window[0] <= one.left < window[1] for one in visits)
    figures.goodput = figures.whole / arguments.seconds / capacity
    figures.cut = sum(one.outcome == "CUT" for one in visits)
    figures.outcomes = dict(Counter(one.outcome for one in came).most_common())
    figures.wait_p50, figures.wait_p95 = (median(waits), percentile(waits, 0.95)) if waits else (0.0, 0.0)
    return figures


def table(rows: list[Figures]) -> str:
    """The figures as Markdown."""
    lines = [
        "| gateway | goodput | rejected | attempts | answer, p50 | p95 | clients |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        clients = ", ".join(f"{count} {outcome}" for outcome, count in row.outcomes.items())
        lines.append(
            f"| {row.gateway} {row.version} | {row.goodput:.2f} | {row.rejected:.1%} | {row.attempts} "
            f"| {row.wait_p50:.1f} s | {row.wait_p95:.1f} s | {clients} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Run the products; 0 if Tidegate used the upstream well, was seldom refused, and nothing was cut."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slots", type=int, default=20, help="what the upstream serves at once")
    parser.add_argument("--gap", type=float, default=0.05, help="seconds between two of its tokens")
    parser.add_argument("--load", type=float, default=2.0, help="offered, as a multiple of its capacity")
    parser.add_argument("--settle", type=float, default=45.0, help="seconds before counting begins")
    parser.add_argument("--seconds", type=float, default=60.0, help="seconds that are counted")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peers", nargs="*", default=["tidegate", "litellm"])
    parser.add_argument("--install", action="store_true", help="install peers that aren't there yet")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    rows: list[Figures] = []
    for peer in peers.ALL:
        if peer.name not in arguments.peers:
            continue
        try:
            if arguments.install:
                peer.install()
            with announced(peer.title):
                rows.append(measure(peer, arguments))
        except peers.PeerUnavailable as reason:
            print(f"\n{peer.title}: {reason}", file=sys.stderr)
    print(table(rows))
    if arguments.output:
        document = {"settings": {**vars(arguments), "output": None}, "rows": [asdict(row) for row in rows]}
        arguments.output.write_text(json.dumps(document, indent=2) + "\n")
    ours = [row for row in rows if row.gateway == peers.TIDEGATE.title]
    good = all(row.goodput >= GOOD_ENOUGH and row.rejected <= FEW_ENOUGH and not row.cut for row in ours)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

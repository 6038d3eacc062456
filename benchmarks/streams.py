"""Open many streams through one gateway at once and check every one of them, byte for byte.

Each stream asks for a text of its own, so that a stream which got a piece of another's is seen, and not
only one that was cut.

    python benchmarks/streams.py --streams 1000
"""

import argparse
import asyncio
import json
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import peers
import uvloop
from load import Answer, Connection, Target, stream_text
from measure import family_cost, median, now, percentile, pinned
from mock_upstream import expected_text
from rig import Rig, cores_from

PATIENCE = 300.0
SAMPLE_SECONDS = 0.25


@dataclass
class Count:
    """What became of the streams; times are milliseconds, memory MiB."""

    streams: int
    chunk_interval_ms: float
    gateway: str
    version: str
    completed: int = 0
    corrupted: int = 0
    lost: int = 0
    seconds: float = 0.0
    ttft_p50_ms: float = 0.0
    ttft_p99_ms: float = 0.0
    direct_ttft_p50_ms: float = 0.0
    direct_ttft_p99_ms: float = 0.0
    resident_start_mib: float = 0.0
    resident_peak_mib: float = 0.0
    cpu_seconds: float = 0.0


async def one(target: Target, request: bytes) -> Answer:
    """Open a connection, ask for a stream and wait for its end."""
    loop = asyncio.get_running_loop()
    host, port = target.address
    answered: asyncio.Future[Answer] = loop.create_future()
    due = now()
    try:
        _, connection = await loop.create_connection(lambda: Connection(lambda _: None), host, port)
    except OSError as error:
        return Answer(due, error=str(error))
    connection.send(request, due, answered.set_result)
    try:
        async with asyncio.timeout(PATIENCE):
            return await answered
    except TimeoutError:
        return Answer(due, error=f"no end after {PATIENCE:.0f} s")
    finally:
        connection.close()


async def every(target: Target, streams: int) -> tuple[list[Answer], float]:
    """Run all the streams at once; gives their answers, in order, and the seconds that they took."""
    requests = [target.request(stream=True, seed=seed) for seed in range(streams)]
    begun = now()
    answers = await asyncio.gather(*(one(target, request) for request in requests))
    return answers, now() - begun


def waits_ms(answers: list[Answer]) -> tuple[float, float]:
    """Milliseconds to the first byte of an answer: median and 99th percentile."""
    waits = sorted((answer.first_byte - answer.due) * 1e3 for answer in answers if answer.first_byte)
    return median(waits), percentile(waits, 0.99)


async def compare(direct: Target, target: Target, pid: int, count: Count) -> dict[str, int]:
    """Run the streams without the gateway, then through it, and fill in the count; gives the faults."""
    answers, _ = await every(direct, count.streams)
    count.direct_ttft_p50_ms, count.direct_ttft_p99_ms = waits_ms(answers)
    watch = asyncio.ensure_future(_watch(pid, count))
    answers, count.seconds = await every(target, count.streams)
    watch.cancel()
    count.ttft_p50_ms, count.ttft_p99_ms = waits_ms(answers)
    faults: dict[str, int] = {}
    for seed, answer in enumerate(answers):
        fault = answer.fault(stream=True)
        if fault:
            count.lost += 1
            faults[fault] = faults.get(fault, 0) + 1
        elif stream_text(b"".join(answer.body)) != expected_text(seed):
            count.corrupted += 1
        else:
            count.completed += 1
    return faults


async def _watch(pid: int, count: Count) -> None:
    ticking = asyncio.Event()
    while True:
        resident = family_cost(pid).resident_bytes / 2**20
        count.resident_peak_mib = max(count.resident_peak_mib, resident)
        try:
            async with asyncio.timeout(SAMPLE_SECONDS):
                await ticking.wait()
        except TimeoutError:
            continue


def main() -> int:
    """Run the streams; 0 if every one of them completed unaltered."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--chunk-interval-ms", type=float, default=50.0)
    parser.add_argument("--peer", default="tidegate", choices=[peer.name for peer in peers.ALL])
    parser.add_argument("--no-pin", action="store_true", help="let every process run on every core")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    peer = next(peer for peer in peers.ALL if peer.name == arguments.peer)
    try:
        count = Count(arguments.streams, arguments.chunk_interval_ms, peer.title, peer.describe())
        with Rig(cores_from(arguments), arguments.chunk_interval_ms) as rig:
            running = rig.start(peer)
            before = family_cost(running.pid)
            count.resident_start_mib = before.resident_bytes / 2**20
            with pinned(rig.cores.load):
                faults = uvloop.run(compare(rig.direct, running.target, running.pid, count))
            count.cpu_seconds = family_cost(running.pid).cpu_seconds - before.cpu_seconds
    except peers.PeerUnavailable as reason:
        print(f"{peer.title}: {reason}", file=sys.stderr)
        return 1
    document = vars(count)
    for name, value in document.items():
        print(
            f"{name.replace('_', ' '):20} {value:.1f}" if isinstance(value, float) else f"{name:20} {value}"
        )
    for fault, times in faults.items():
        print(f"{times} x {fault}")
    if arguments.output:
        arguments.output.write_text(json.dumps(document | {"faults": faults}, indent=2) + "\n")
    return 0 if count.completed == count.streams else 1


if __name__ == "__main__":
    sys.exit(main())

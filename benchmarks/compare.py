"""Compare Tidegate with other gateways: CPU per request, added latency, throughput and memory, in one run.

Every gateway stands in front of the same mock upstream on the same core, and every figure is taken in
several short rounds that go round all the gateways in turn, so that a machine which speeds up or slows
down does so for all of them.

    python benchmarks/compare.py --install          # the first time: install the peers, then compare
    python benchmarks/compare.py --quick --peers nginx,smg
"""

import argparse
import datetime as dt
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import peers
import report
from load import Target
from measure import family_cost, machine, median
from rig import Rig, announced, cores_from, verify

LATENCY_CONNECTIONS = 64
FASTEST_RATE = 10_000.0


@dataclass(frozen=True)
class Plan:
    """How long a run measures."""

    rounds: int = 5
    seconds: float = 2.5
    latency_rounds: int = 3
    latency_seconds: float = 3.0
    connections: int = 32
    chunk_interval_ms: float = 0.0

    @classmethod
    def quick(cls) -> "Plan":
        """A look, not a measurement."""
        return cls(rounds=2, seconds=1.2, latency_rounds=1, latency_seconds=2.0)


@dataclass
class Row:
    """What one gateway did; ``unavailable`` says why it did nothing."""

    name: str
    title: str
    version: str = ""
    unavailable: str = ""
    unary_cpu_us: list[float] = field(default_factory=list)
    unary_per_second: list[float] = field(default_factory=list)
    stream_cpu_us: list[float] = field(default_factory=list)
    stream_per_second: list[float] = field(default_factory=list)
    latency_rate: float = 0.0
    direct_p50_ms: list[float] = field(default_factory=list)
    direct_p99_ms: list[float] = field(default_factory=list)
    added_p50_ms: list[float] = field(default_factory=list)
    added_p99_ms: list[float] = field(default_factory=list)
    resident_start_mib: float = 0.0
    resident_end_mib: float = 0.0
    requests: int = 0
    errors: dict[str, int] = field(default_factory=dict)

    def forget(self) -> None:
        """Drop what was measured while warming up; errors stay."""
        for samples in (self.unary_cpu_us, self.unary_per_second, self.stream_cpu_us, self.stream_per_second):
            samples.clear()

    def count(self, outcome: dict[str, Any], kind: str) -> None:
        """Add the requests and the errors of a run of the load generator."""
        self.requests += outcome["completed"]
        for fault, times in outcome["errors"].items():
            self.errors[f"{kind}: {fault}"] = self.errors.get(f"{kind}: {fault}", 0) + times


@dataclass
class Contender:
    """A gateway that runs, and its row."""

    running: peers.Running
    row: Row

    @property
    def target(self) -> Target:
        """Where its clients send chat completions."""
        return self.running.target

    def resident_mib(self) -> float:
        """Memory resident now, of all its processes."""
        return family_cost(self.running.pid).resident_bytes / 2**20


def measure_cpu(rig: Rig, contender: Contender, plan: Plan, *, stream: bool) -> None:
    """One round at saturation: CPU per completed request, and requests a second."""
    options = ["--connections", str(plan.connections), "--seconds", str(plan.seconds)]
    before = family_cost(contender.running.pid).cpu_seconds
    outcome = rig.load(contender.target, *options, *(["--stream"] if stream else []))
    spent = family_cost(contender.running.pid).cpu_seconds - before
    row = contender.row
    row.count(outcome, "stream" if stream else "unary")
    if not outcome["completed"]:
        return
    costs, rates = (
        (row.stream_cpu_us, row.stream_per_second) if stream else (row.unary_cpu_us, row.unary_per_second)
    )
    costs.append(spent * 1e6 / outcome["completed"])
    rates.append(outcome["per_second"])


def measure_latency(rig: Rig, contender: Contender, plan: Plan) -> None:
    """One round at half the saturation rate: the mock alone, then through the gateway."""
    row = contender.row
    rate = min(median(row.unary_per_second) / 2, FASTEST_RATE)
    if not rate:
        return
    options = ["--connections", str(LATENCY_CONNECTIONS), "--seconds", str(plan.latency_seconds)]
    options += ["--rate", f"{rate:.1f}"]
    direct = rig.load(rig.direct, *options)
    through = rig.load(contender.target, *options)
    row.count(through, "paced")
    if not (direct["completed"] and through["completed"]):
        return
    row.latency_rate = rate
    row.direct_p50_ms.append(direct["p50_ms"])
    row.direct_p99_ms.append(direct["p99_ms"])
    row.added_p50_ms.append(through["p50_ms"] - direct["p50_ms"])
    row.added_p99_ms.append(through["p99_ms"] - direct["p99_ms"])


def start_all(rig: Rig, chosen: list[peers.Peer], *, install: bool) -> tuple[list[Row], list[Contender]]:
    """Install and start the chosen peers; those that cannot be started keep a row that says why."""
    rows: list[Row] = []
    contenders: list[Contender] = []
    for peer in chosen:
        row = Row(peer.name, peer.title)
        rows.append(row)
        with announced(f"starting {peer.title}"):
            try:
                if install:
                    peer.install()
                row.version = peer.describe()
                contender = Contender(rig.start(peer), row)
            except peers.PeerUnavailable as reason:
                row.unavailable = str(reason)
                continue
            wrong = verify(contender.target)
            if wrong:
                row.errors[wrong] = 1
            row.resident_start_mib = contender.resident_mib()
            contenders.append(contender)
    return rows, contenders


def run(rig: Rig, contenders: list[Contender], plan: Plan) -> None:
    """Measure every contender in interleaved rounds."""
    warm_up = Plan(seconds=0.5, connections=plan.connections)
    with announced("warming up"):
        for contender in contenders:
            for stream in (False, True):
                measure_cpu(rig, contender, warm_up, stream=stream)
            contender.row.forget()
    for number in range(plan.rounds):
        with announced(f"CPU per request, round {number + 1} of {plan.rounds}"):
            for stream in (False, True):
                for contender in _turned(contenders, number):
                    measure_cpu(rig, contender, plan, stream=stream)
    for number in range(plan.latency_rounds):
        with announced(f"added latency, round {number + 1} of {plan.latency_rounds}"):
            for contender in _turned(contenders, number):
                measure_latency(rig, contender, plan)
    for contender in contenders:
        contender.row.resident_end_mib = contender.resident_mib()
        wrong = verify(contender.target)
        if wrong:
            contender.row.errors[f"after the run: {wrong}"] = 1


def _turned(contenders: list[Contender], by: int) -> list[Contender]:
    """The contenders, starting with another one each round."""
    by %= max(1, len(contenders))
    return contenders[by:] + contenders[:by]


def arguments_of(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    names = ",".join(peer.name for peer in peers.ALL)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", default=names, help=f"comma-separated (default: {names})")
    parser.add_argument("--install", action="store_true", help="install the peers that are missing")
    parser.add_argument("--quick", action="store_true", help="under two minutes, less certain")
    parser.add_argument("--rounds", type=int, help="CPU rounds (default: 5)")
    parser.add_argument("--chunk-interval-ms", type=float, default=0.0, help="pace the upstream's streams")
    parser.add_argument("--no-pin", action="store_true", help="let every process run on every core")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    parser.add_argument("--picture", type=Path, help="draw the results, as SVG or PNG by the name's end")
    return parser.parse_args(argv)


def main() -> int:
    """Run the comparison; 0 if every gateway that ran answered every request rightly."""
    arguments = arguments_of()
    known = {peer.name: peer for peer in peers.ALL}
    unknown = [name for name in arguments.peers.split(",") if name not in known]
    if unknown:
        print(f"unknown peers: {', '.join(unknown)}; known: {', '.join(known)}", file=sys.stderr)
        return 2
    base = Plan.quick() if arguments.quick else Plan()
    settings = asdict(base) | {"chunk_interval_ms": arguments.chunk_interval_ms}
    if arguments.rounds:
        settings["rounds"] = arguments.rounds
    plan = Plan(**settings)
    host = machine()
    with Rig(cores_from(arguments), plan.chunk_interval_ms) as rig:
        chosen = [known[name] for name in arguments.peers.split(",")]
        rows, contenders = start_all(rig, chosen, install=arguments.install)
        run(rig, contenders, plan)
    results = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "command": "python benchmarks/compare.py " + " ".join(sys.argv[1:]),
        "machine": host,
        "pinned": not arguments.no_pin,
        "plan": asdict(plan),
        "peers": [asdict(row) for row in rows],
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=2) + "\n")
    report.print_comparison(results)
    if arguments.picture:
        report.draw(results, arguments.picture)
    return 1 if any(contender.row.errors for contender in contenders) else 0


if __name__ == "__main__":
    sys.exit(main())

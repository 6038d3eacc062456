"""Send many requests through one gateway and watch its resident memory: it should level off and stay.

python benchmarks/soak.py --requests 200000
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

import peers
import uvloop
from load import Generator, Target
from measure import family_cost, pinned
from rig import Rig, cores_from

CONNECTIONS = 32
SAMPLE_SECONDS = 0.5
SHOWN = 20
FLAT_SHARE, FLAT_MIB = 0.05, 4.0
LONGEST = 3600.0

Sample = tuple[int, float]


async def soak(
    target: Target, requests: int, resident_mib: Callable[[], float]
) -> tuple[list[Sample], Generator]:
    """Send the requests and sample memory meanwhile; gives (requests answered, MiB) in order."""
    generator = Generator(target, CONNECTIONS, stream=False)
    await generator.open()
    series: list[Sample] = [(0, resident_mib())]
    work = asyncio.ensure_future(generator.closed_loop(LONGEST, requests))
    while not work.done():
        await asyncio.wait([work], timeout=SAMPLE_SECONDS)
        series.append((generator.outcome.completed, resident_mib()))
    await work
    generator.close()
    return series, generator


def growth(series: list[Sample]) -> tuple[float, bool]:
    """MiB gained from a quarter of the way to the end; flat within 4 MiB, or 5% where that's more."""
    total = series[-1][0]
    settled = next(mib for requests, mib in series if requests >= total / 4)
    grown = series[-1][1] - settled
    return grown, grown <= max(FLAT_MIB, FLAT_SHARE * settled)


def thinned(series: list[Sample]) -> list[Sample]:
    """The series at about twenty even steps, its last sample included."""
    total = series[-1][0]
    shown = [next(sample for sample in series if sample[0] >= total * step / SHOWN) for step in range(SHOWN)]
    return sorted({*shown, series[-1]})


def main() -> int:
    """Run the soak; 0 if every request succeeded and memory stayed flat."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--peer", default="tidegate", choices=[peer.name for peer in peers.ALL])
    parser.add_argument("--no-pin", action="store_true", help="let every process run on every core")
    parser.add_argument("--output", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    peer = next(peer for peer in peers.ALL if peer.name == arguments.peer)
    try:
        with Rig(cores_from(arguments)) as rig:
            running = rig.start(peer)

            def resident_mib() -> float:
                return family_cost(running.pid).resident_bytes / 2**20

            with pinned(rig.cores.load):
                series, generator = uvloop.run(soak(running.target, arguments.requests, resident_mib))
    except peers.PeerUnavailable as reason:
        print(f"{peer.title}: {reason}", file=sys.stderr)
        return 1
    grown, flat = growth(series)
    outcome = generator.outcome
    widest = max(mib for _, mib in series)
    for requests, mib in thinned(series):
        print(f"{requests:>9,} {mib:8.1f} MiB {'#' * round(50 * mib / widest)}")
    rate = outcome.completed / outcome.seconds
    print(f"{outcome.completed:,} requests at {rate:,.0f} a second, {sum(outcome.errors.values())} errors")
    print(f"{grown:+.1f} MiB from a quarter of the way to the end: {'flat' if flat else 'NOT flat'}")
    document = {
        "gateway": peer.title,
        "version": peer.describe(),
        "requests": outcome.completed,
        "errors": outcome.errors,
        "per_second": rate,
        "growth_mib": grown,
        "flat": flat,
        "series": thinned(series),
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if flat and not outcome.errors else 1


if __name__ == "__main__":
    sys.exit(main())

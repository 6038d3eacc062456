"""What three gateways make of one tenant's limit, when ten times as much is offered for two minutes.

    python benchmarks/replicas.py [--seconds 120]

A real Valkey, three gateway processes, 100 requests a minute. Twice: left alone, and with the server
killed in the middle, empty when it comes back five seconds later. Told are the calls let in, the most
that the limit allows (burst + rate * time), and by how much the worst window of any length was above it.
"""

import argparse
import asyncio
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests.kit

from tests.kit import processes, valkey
from tests.kit.offered import Answer, most_in_a_window, offer

AMOUNT = 100
RATE = AMOUNT / 60
REPLICAS = 3


async def traffic(
    urls: list[str], seconds: float, server: valkey.ValkeyServer, *, outage: bool
) -> list[Answer]:
    """Ten times the limit, while the server is killed and started again, or isn't."""

    async def disturb() -> None:
        if outage:
            await asyncio.sleep(seconds / 2)  # noqa: TID251 - a benchmark runs in real time
            server.kill()
            await asyncio.sleep(5)  # noqa: TID251 - as above
            await asyncio.to_thread(server.start)

    answers, _ = await asyncio.gather(offer(urls, 10 * RATE, seconds), disturb())
    return answers


def run(folder: Path, upstream_url: str, seconds: float, *, outage: bool) -> None:
    """One run over fresh processes; prints its line."""
    with ExitStack() as running:
        server = valkey.ValkeyServer(folder).start()
        running.callback(server.kill)
        urls = []
        for number in range(REPLICAS):
            below = folder / str(number)
            below.mkdir()
            config = processes.settings(
                upstream_url,
                below / "keys.db",
                store=server.url,
                tiers={"free": {"limits": {"requests": f"{AMOUNT}/minute"}}},
                keys=[{"name": "client", "key": processes.CLIENT_KEY, "tenant": "acme", "tier": "free"}],
            )
            urls.append(running.enter_context(processes.gateway(below, config)).url)
        answers = asyncio.run(traffic(urls, seconds, server, outage=outage))
    admitted = [answer for answer in answers if answer.status == 200]
    bound = AMOUNT + RATE * max(answer.sent for answer in answers)
    above = most_in_a_window(answers, RATE) - AMOUNT
    statuses = sorted({answer.status for answer in answers})
    what = "server killed and restarted" if outage else "left alone"
    print(
        f"{what}: {len(answers)} offered, {len(admitted)} let in of {bound:.1f} "
        f"({len(admitted) / bound:.1%}), worst window {above:+.1f}, statuses {statuses}",
        flush=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120)
    length = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as path, processes.faulty_upstream(Path(path)) as upstream:
        for disturbed in (False, True):
            place = Path(path) / str(disturbed)
            place.mkdir()
            run(place, upstream.url, length, outage=disturbed)

"""What an answer from the cache costs, next to one that is forwarded: CPU time of the gateway, and latency.

    python benchmarks/cache.py

A gateway with the same model twice, once with a cache. Calls go one after another over one connection, in
turns of both, so that what else the machine does falls on either. CPU is that of all the gateway's
processes; the mock upstream answers at once.
"""

import argparse
import http.client
import json
import sys
from dataclasses import replace
from pathlib import Path

import peers
import yaml
from load import PROMPT
from measure import family_cost, median, now, percentile, pinned
from rig import Rig, cores_from

FORWARDED, CACHED = "forwarded", "cached"
ROUTE = ["mock/mock-model"]


def _launch(setting: peers.Setting, binary: Path) -> peers.Launch:
    """Tidegate as in the other benchmarks, with the second model."""
    path = peers.tidegate_configuration(setting)
    configuration = yaml.safe_load(Path(path).read_text())
    configuration["models"] |= {
        FORWARDED: {"route": ROUTE},
        CACHED: {"route": ROUTE, "cache": {"when": "always"}},
    }
    configuration["cache"] = {"path": str(setting.folder / "cache.db")}
    setting.write("tidegate.yaml", yaml.safe_dump(configuration, sort_keys=False))
    return peers.Launch([str(binary), "serve", "--config", path, "--port", str(setting.port)])


class Caller:
    """One connection to the gateway."""

    def __init__(self, running: peers.Running) -> None:
        target = running.target
        host, port = target.address
        self._pid = running.pid
        self._headers = {**target.headers, "content-type": "application/json"}
        self._connection = http.client.HTTPConnection(host, port, timeout=30)

    def ask(self, model: str, *, stream: bool) -> str | None:
        """Ask once; what the cache did."""
        messages = [{"role": "user", "content": PROMPT}]
        body = json.dumps({"model": model, "messages": messages, "max_tokens": 256, "stream": stream})
        self._connection.request("POST", "/v1/chat/completions", body, self._headers)
        response = self._connection.getresponse()
        response.read()
        if response.status != 200:
            raise RuntimeError(f"status {response.status}")
        return response.getheader("x-tidegate-cache")

    def turn(self, model: str, count: int, *, stream: bool) -> tuple[float, list[float]]:
        """``count`` calls: the gateway's CPU seconds, and the latency of each."""
        before = family_cost(self._pid).cpu_seconds
        waits = []
        for _ in range(count):
            begun = now()
            said = self.ask(model, stream=stream)
            waits.append(now() - begun)
            if said != ("hit" if model == CACHED else None):
                raise RuntimeError(f"{model}: x-tidegate-cache: {said}")
        return family_cost(self._pid).cpu_seconds - before, waits


def main() -> int:
    """Measure and print; 0 if a hit costs half a forwarded call or less."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--calls", type=int, default=300, help="in each turn")
    parser.add_argument("--no-pin", action="store_true", help="let every process run on every core")
    arguments = parser.parse_args()
    peer = replace(peers.TIDEGATE, launch=_launch)
    ratios = []
    with Rig(cores_from(arguments)) as rig:
        running = rig.start(peer)
        caller = Caller(running)
        with pinned(rig.cores.load):
            for stream in (False, True):
                caller.ask(CACHED, stream=stream)
                cpu = dict.fromkeys((FORWARDED, CACHED), 0.0)
                waits: dict[str, list[float]] = {FORWARDED: [], CACHED: []}
                for _ in range(arguments.turns):
                    for model in cpu:
                        spent, took = caller.turn(model, arguments.calls, stream=stream)
                        cpu[model] += spent
                        waits[model] += took
                calls = arguments.turns * arguments.calls
                for model, spent in cpu.items():
                    ordered = sorted(waits[model])
                    times = (
                        f"p50 {median(ordered) * 1e3:6.3f} ms   p99 {percentile(ordered, 0.99) * 1e3:6.3f} ms"
                    )
                    kind = "stream" if stream else "whole"
                    print(f"{kind:7} {model:10} {spent / calls * 1e6:6.0f} us CPU   {times}")
                ratios.append(cpu[CACHED] / cpu[FORWARDED])
                print(f"{'':7} a hit costs {ratios[-1]:.2f} of a forwarded call")
    return int(max(ratios) > 0.5)


if __name__ == "__main__":
    sys.exit(main())

"""Starts a gateway with three upstreams that misbehave in turn, and customers of three tiers; Ctrl-C ends it.

python -m demo [--act SECONDS] [--seconds SECONDS] [--no-local]
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import webbrowser
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from random import Random

from demo.acts import perform
from demo.config import ADMIN_KEY
from demo.load import CROWDS, crowd_in
from demo.stage import Stage, stage

PORT, PROMETHEUS_PORT = 8080, 9090


async def play(scene: Stage, act: float, seconds: float | None) -> None:
    """Have the upstreams perform and the crowds come, until the time is up or cancelled."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as parts:
            parts.create_task(perform(scene.upstreams, act, say))
            for number, crowd in enumerate(CROWDS):
                parts.create_task(crowd_in(scene.gateway.url, crowd, Random(number)))


def say(text: str) -> None:
    """Tell what happens, with the time, by which it is found in the dashboards."""
    print(f"{datetime.now().astimezone():%H:%M:%S}  {text}", flush=True)


def greet(scene: Stage) -> None:
    """Tell where to look."""
    url = scene.gateway.url
    prometheus = scene.prometheus or "none here: apt-get install prometheus"
    print(
        f"\n  Gateway      {url}/v1    keys: {', '.join(crowd.key for crowd in CROWDS)}"
        f"\n  Live page    {url}/dashboard    key: {ADMIN_KEY}"
        f"\n  Metrics      {url}/metrics"
        f"\n  Prometheus   {prometheus}    its /alerts tells what fires"
        "\n  Ctrl-C ends it.\n",
        flush=True,
    )
    if sys.platform == "darwin" or os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"}:
        webbrowser.open(f"{url}/dashboard")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__.partition(";")[0])
    parser.add_argument("--act", type=float, default=15.0, help="how many seconds each misbehaviour takes")
    parser.add_argument("--seconds", type=float, help="end after so many; otherwise at Ctrl-C")
    parser.add_argument("--no-local", action="store_true", help="leave the bundled model out")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    print("Starting three upstreams, a Valkey, the gateway and Prometheus ...", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="tidegate-demo-") as folder,
        suppress(KeyboardInterrupt),
        stage(
            Path(folder), port=PORT, prometheus_port=PROMETHEUS_PORT, local=not arguments.no_local
        ) as scene,
    ):
        greet(scene)
        asyncio.run(play(scene, arguments.act, arguments.seconds))
    print("\nEverything is stopped.")


if __name__ == "__main__":
    main()

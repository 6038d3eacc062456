"""Draws docs/img/policies/health.svg from the simulation. Run: PYTHONPATH=. python docs/plots/health.py."""

# ruff: noqa: INP001 - a script
from collections import Counter

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "tidegate"
from matplotlib import pyplot as plt  # noqa: E402 - the backend comes first

from tests.simulation.test_health import (  # noqa: E402
    DEAD_FROM,
    DEAD_UNTIL,
    one_of_three_dead,
    shares_of_return,
)


def main() -> None:
    """Draw."""
    figure, (outage, ramp) = plt.subplots(1, 2, figsize=(10, 3.4))
    pool, _ = one_of_three_dead("reset", strategy="weighted", probes="models")
    step = 5
    for upstream in pool.upstreams:
        calls = Counter(int(t // step) for t in upstream.opened)
        times = range(int(DEAD_UNTIL + 120) // step)
        outage.plot([t * step for t in times], [calls[t] / step for t in times], label=upstream.name)
    outage.axvspan(DEAD_FROM, DEAD_UNTIL, color="0.9", label="up0 is dead")
    outage.set(xlabel="seconds", ylabel="calls a second", title="One of three upstreams dies and returns")
    outage.legend(fontsize=8)
    for strategy, mark in (("weighted", "o"), ("least-busy", "^"), ("latency", "x")):
        rows = shares_of_return(strategy)
        ramp.plot([row[0] for row in rows], [row[1] for row in rows], mark, label=strategy)
    ramp.plot([row[0] for row in rows], [row[2] for row in rows], "k--", label="the weight's share")
    ramp.set(xlabel="seconds since the return", ylabel="share of the calls", title="The ramp of one of three")
    ramp.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig("docs/img/policies/health.svg", metadata={"Date": None})


main()

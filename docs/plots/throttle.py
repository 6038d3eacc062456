"""Draws docs/img/policies/throttle.svg from the simulation.

Run: PYTHONPATH=. python docs/plots/throttle.py.
"""

# ruff: noqa: INP001, S311 - a script; seeded
from random import Random

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "tidegate"
from matplotlib import pyplot as plt  # noqa: E402 - the backend comes first

from policies.throttle import AcceptRatio, ThrottleOptions  # noqa: E402
from tests.simulation.test_throttle import demand, share_sent  # noqa: E402


def main() -> None:
    """Draw."""
    seen = demand(AcceptRatio(ThrottleOptions(), random=Random(2)), Random(1))
    times = range(0, 900, 10)
    figure, axes = plt.subplots(figsize=(7, 2.8))
    axes.axvspan(300, 600, color="0.9", label="nine of ten refused")
    axes.step(times, [share_sent(seen, at, at + 10) for at in times], where="post", label="share sent")
    axes.set(xlabel="seconds", ylabel="of the demand", ylim=(0, 1.05), title="The client-side throttle alone")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig("docs/img/policies/throttle.svg", metadata={"Date": None})


main()

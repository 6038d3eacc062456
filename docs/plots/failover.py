"""Draws docs/img/policies/failover.svg. Run: PYTHONPATH=. python docs/plots/failover.py."""

# ruff: noqa: INP001 - a script
from collections import Counter

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "tidegate"
from matplotlib import pyplot as plt  # noqa: E402 - the backend comes first

from tests.simulation.retry_traffic import deaths_along_a_route  # noqa: E402


def main() -> None:
    """Draw."""
    figure, axes = plt.subplots(figsize=(6.5, 3.4))
    run = deaths_along_a_route()
    for name, times in run.answered.items():
        counts = Counter(int(at) for at in times)
        axes.plot([counts[t] for t in range(20)], label=f"answered by {name}")
    axes.axvline(10, color="0.6", linestyle="--")
    axes.axvline(15, color="0.6", linestyle="--")
    axes.set(
        xlabel="seconds", ylabel="answers a second", title="a dies at 10 s and b at 15 s; c is the next step"
    )
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig("docs/img/policies/failover.svg", metadata={"Date": None})


main()

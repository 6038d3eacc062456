"""Draws docs/img/policies/hedge.svg from the simulation. Run: PYTHONPATH=. python docs/plots/hedge.py."""

# ruff: noqa: INP001 - a script
import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "tidegate"
from matplotlib import pyplot as plt  # noqa: E402 - the backend comes first

from tests.simulation.retry_traffic import slow_tail  # noqa: E402


def main() -> None:
    """Draw."""
    figure, axes = plt.subplots(figsize=(6.5, 3.4))
    for label, hedged in (("no hedge", False), ("hedge at p95", True)):
        times, attempts = slow_tail(hedged)
        shares = [1 - rank / len(times) for rank in range(len(times))]
        axes.step(times, shares, label=f"{label}: {attempts:.3f} attempts a call")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="seconds to the first event",
        ylabel="share of calls that took longer",
        title="3% of first events are 15 times as slow",
    )
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig("docs/img/policies/hedge.svg", metadata={"Date": None})


main()

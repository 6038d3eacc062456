"""Draws docs/img/policies/balance.svg from the simulation. Run: PYTHONPATH=. python docs/plots/balance.py."""

# ruff: noqa: INP001 - a script
import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "tidegate"
from matplotlib import pyplot as plt  # noqa: E402 - the backend comes first

from tests.simulation.test_balance import SEEDS, one_of_five_slow  # noqa: E402


def main() -> None:
    """Draw."""
    figure, axes = plt.subplots(figsize=(7, 3.4))
    for name, strategy in (("round robin", "weighted"), ("least-busy", "least-busy"), ("latency", "latency")):
        times = sorted(o.first_token for seed in SEEDS for o in one_of_five_slow(strategy, seed))
        axes.plot(times, [(i + 1) / len(times) for i in range(len(times))], label=name)
    axes.axhline(0.99, color="0.7", linestyle=":", label="99%")
    axes.set(
        xscale="log",
        xlabel="seconds to the first token",
        ylabel="share of the calls",
        title="One of five upstreams is eight times slower",
    )
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig("docs/img/policies/balance.svg", metadata={"Date": None})


main()

"""Draws docs/img/policies/retry.svg from the simulation. Run: PYTHONPATH=. python docs/plots/retry.py."""

# ruff: noqa: INP001, PLR2004 - a script with figures
from collections import Counter

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "tidegate"
from matplotlib import pyplot as plt  # noqa: E402 - the backend comes first

from policies.budget import BudgetOptions  # noqa: E402
from tests.simulation.retry_traffic import UNLIMITED, contention, outage  # noqa: E402


def main() -> None:
    """Draw."""
    figure, (herd, storm) = plt.subplots(1, 2, figsize=(10, 3.4))
    for label, jitter in (("without jitter", False), ("full jitter", True)):
        sent, _ = contention(jitter)
        early = [at for at in sent if at < 20]
        herd.hist(early, bins=80, range=(0, 20), alpha=0.7, label=f"{label}: {len(sent)} calls in all")
    herd.set(xlabel="seconds", ylabel="calls in 0.25 s", title="100 clients start at once at 5 slots")
    herd.legend(fontsize=8)
    for label, options in (("no budget", UNLIMITED), ("10% + 1/s", BudgetOptions())):
        run = outage(options, out=30)
        counts = Counter(int(at) for at in run["sent"])
        storm.plot(
            [counts[t] for t in range(50)], label=f"{label}: {run['amplification']:.2f} attempts a call"
        )
    storm.axvspan(10, 40, color="0.9")
    storm.set(xlabel="seconds", ylabel="attempts a second", title="An outage of 30 s at 50 calls a second")
    storm.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig("docs/img/policies/retry.svg", metadata={"Date": None})


main()

"""Draws docs/img/policies/rescue.svg from the simulation. Run: PYTHONPATH=. python docs/plots/rescue.py."""

# ruff: noqa: INP001 - a script
import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "tidegate"
from matplotlib import pyplot as plt  # noqa: E402 - the backend comes first

from tests.simulation.broken_streams import broken_streams  # noqa: E402

LABELS = {
    "off": "no rescue",
    "continue": "continue from a prefill",
    "restart": "restart, temperature 0",
    "sampled": "restart, sampled",
}


def main() -> None:
    """Draw."""
    figure, axes = plt.subplots(figsize=(6.5, 3.4))
    shares = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    for mode, label in LABELS.items():
        whole = [broken_streams(mode, breaks=share, calls=150)[0]["whole"] for share in shares]
        axes.plot(shares, whole, "o-", label=label)
    axes.set(xlabel="share of streams that break", ylabel="share of whole answers", ylim=(0, 1.05))
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig("docs/img/policies/rescue.svg", metadata={"Date": None})


main()

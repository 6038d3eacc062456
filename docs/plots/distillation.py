"""Draws docs/img/distillation.svg from distillation.csv beside it. Run: python docs/plots/distillation.py.

The columns: a run's curve.csv, and what the student had on the same texts before it learned.
"""

# ruff: noqa: INP001 - a script
import csv
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "tidegate"
from matplotlib import pyplot as plt  # noqa: E402 - the backend comes first


def main() -> None:
    """Draw."""
    with Path(__file__).with_suffix(".csv").open(encoding="ascii") as file:
        rows = list(csv.DictReader(file))
    steps = [int(row["step"]) for row in rows]
    figure, axes = plt.subplots(figsize=(7, 2.8))
    axes.plot(steps, [float(row["untrained"]) for row in rows], marker="o", label="before it learned")
    axes.plot(steps, [float(row["kl"]) for row in rows], marker="o", label="while it learns")
    axes.axhline(0.1, color="tab:red", linestyle="--", linewidth=1, label="gate")
    axes.set(xlabel="steps of 512 tokens", ylabel="KL from exact", ylim=(0, None), xticks=steps)
    axes.set_title("six of eight experts, means of five texts")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig("docs/img/distillation.svg", metadata={"Date": None})


main()

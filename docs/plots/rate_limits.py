"""Draws docs/img/policies/rate-limits.svg from the simulation.

Run: PYTHONPATH=. python docs/plots/rate_limits.py.
"""

# ruff: noqa: INP001 - a script
import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "tidegate"
from matplotlib import pyplot as plt  # noqa: E402 - the backend comes first

from tests.simulation.token_traffic import TOKENS, offer  # noqa: E402


def main() -> None:
    """Draw."""
    figure, axes = plt.subplots(figsize=(7, 2.8))
    for settle, label in ((True, "reserve, then settle"), (False, "reserve only")):
        axes.step(range(30), offer(settle=settle).per_minute(), where="post", label=label)
    axes.axhline(TOKENS.amount, color="0.6", linestyle="--", label="the limit")
    axes.set(xlabel="minutes", ylabel="tokens used a minute", ylim=(0, None))
    axes.set_title("60,000 tokens a minute, twice as many wanted, max_tokens 4096")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig("docs/img/policies/rate-limits.svg", metadata={"Date": None})


main()

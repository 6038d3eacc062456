"""Draws docs/img/policies/adaptive-concurrency.svg from the simulation.

Run: PYTHONPATH=. python docs/plots/adaptive_concurrency.py.
"""

# ruff: noqa: INP001, S311 - a script; seeded
from random import Random

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "tidegate"
from matplotlib import pyplot as plt  # noqa: E402 - the backend comes first

from tests.simulation.limited_upstream import LimitedUpstream, overload  # noqa: E402
from tests.simulation.other_limits import Aimd  # noqa: E402
from tests.simulation.test_adaptive import DEFAULT, RATE, STEPS, adaptive  # noqa: E402


def main() -> None:
    """Draw."""
    figure, rows = plt.subplots(3, 1, figsize=(7, 7), sharex=True)
    runs = (
        ("adaptive, an upstream that answers 503", adaptive(), False),
        ("Netflix AIMD, the same upstream", Aimd(DEFAULT), False),
        ("adaptive, an upstream that only queues", adaptive(), True),
    )
    for axes, (title, limit, queues) in zip(rows, runs, strict=True):
        upstream = LimitedUpstream(STEPS, Random(1), queues=queues)
        seen: list[tuple[float, float]] = []
        overload(upstream, [limit], rate=RATE, watch=lambda now, s=seen, x=limit: s.append((now, x.limit)))
        axes.step([0, 300, 600, 900], [40, 12, 40, 40], where="post", color="0.6", label="hidden limit")
        axes.plot(*zip(*seen[::20], strict=True), linewidth=1, label="limit found")
        refusals = [at for at, _ in upstream.trace]
        axes.plot(
            refusals, [0] * len(refusals), "|", color="C3", label=f"refused: {upstream.refused_share:.1%}"
        )
        axes.set(ylim=(-2, 80), ylabel="concurrency")
        axes.set_title(f"{title}: utilisation {upstream.utilisation:.2f}", fontsize=9)
        axes.legend(fontsize=7, loc="upper right", ncols=3)
    rows[-1].set_xlabel("seconds")
    figure.tight_layout()
    figure.savefig("docs/img/policies/adaptive-concurrency.svg", metadata={"Date": None})


main()

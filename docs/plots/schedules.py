"""Draws docs/img/policies/schedules.svg. Run: PYTHONPATH=. python docs/plots/schedules.py."""

# ruff: noqa: INP001 - a script
from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "tidegate"
from matplotlib import pyplot as plt  # noqa: E402 - the backend comes first

from policies.schedule import Schedule, Terms, Window  # noqa: E402


def main() -> None:
    """Draw."""
    night = Window(time(22), time(6), Terms(max_concurrency=40))
    schedule = Schedule(ZoneInfo("Europe/Berlin"), (night,), Terms(max_concurrency=12))
    figure, axes = plt.subplots(figsize=(7, 2.8))
    for shift, day in enumerate((28, 29, 30)):
        first = datetime(2025, 3, day, 12, tzinfo=UTC).timestamp()
        limits = [schedule.at(first + 60 * minute).max_concurrency or 0 for minute in range(24 * 60)]
        hours = [12 + minute / 60 for minute in range(24 * 60)]
        axes.step(hours, [limit + shift for limit in limits], label=f"from {day} March, noon")
    axes.set(
        xlabel="hours, UTC",
        ylabel="max_concurrency",
        title="22:00 to 06:00 in Berlin; clocks change on 30 March",
    )
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig("docs/img/policies/schedules.svg", metadata={"Date": None})


main()

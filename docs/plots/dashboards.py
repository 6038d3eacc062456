"""Draws docs/img/dashboards/*.svg: the dashboards, by their own queries, of a demo that really runs.

While its last upstream fails, pictures of the live page and of ``tidegate top`` are taken (live.py).

Run: PYTHONPATH=. python docs/plots/dashboards.py. It wants Prometheus and Chromium on the PATH.
"""

# ruff: noqa: INP001 - a script
import argparse
import asyncio
import math
import re
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams |= {
    "svg.hashsalt": "tidegate",
    "svg.fonttype": "none",
    "font.size": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
import live  # noqa: E402 - beside this script
from matplotlib import dates  # noqa: E402 - the backend comes first
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: E402

from demo.__main__ import play  # noqa: E402
from demo.config import ADMIN_KEY  # noqa: E402
from demo.stage import Stage, stage  # noqa: E402
from tests.kit.dashboards import boards, over_time  # noqa: E402

FOLDER = Path(__file__).parents[1] / "img"
ACT = 20.0
"""Seven of them are a round, at the end of which all is well."""
BEFORE_OUT = 4.0
"""After so many of them the browser starts; in the next two an upstream is out."""
COLUMNS, CELL = 24, 0.27
"""Grafana's grid, and the height of its cells in inches."""
WIDTH = 12.0
STEP = 1.0
"""Seconds between two points."""
MOST = 9
"""Names that a legend has room for; the largest come first."""
_MILLION = 1e6
_SIGNS = {"reqps": "/s", "cps": "/s", "watt": " W", "watth": " Wh", "joule": " J"}
COLOURS = ("#73bf69", "#5794f2", "#f2cc0c", "#ff9830", "#b877d9", "#f2495c", "#56a64b", "#8ab8ff", "#ffa6b0")


def short(value: float, unit: str) -> str:
    """A figure as Grafana writes it, more or less."""
    if unit == "percentunit":
        return f"{100 * value:.3g}%"
    if unit == "currencyUSD":
        return f"${value:.2f}"
    if unit == "s":
        return f"{value:.3g} s" if value >= 1 or value == 0 else f"{1000 * value:.3g} ms"
    if unit == "bytes":
        return f"{value / 1024:.3g} KiB"
    if unit == "short" and value >= _MILLION:
        return f"{value / _MILLION:.3g} Mil"
    return f"{value:.3g}{_SIGNS.get(unit, '')}"


def legend(form: str, labels: dict[str, str]) -> str:
    """The name of a series: ``{{label}}`` stands for its value."""
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), form).strip()


def draw_board(board: dict[str, Any], url: str, between: tuple[float, float]) -> Figure:
    """One dashboard in Grafana's layout."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    height = (rows + 1) * CELL
    figure = plt.figure(figsize=(WIDTH, height), facecolor="#f4f5f5")
    figure.text(0.008, 1 - 0.7 * CELL / height, board["title"], fontsize=11, weight="bold", va="center")
    for panel in board["panels"]:
        grid = panel["gridPos"]
        left, top = grid["x"] / COLUMNS, 1 - (grid["y"] + 1) * CELL / height
        width, tall = grid["w"] / COLUMNS, grid["h"] * CELL / height
        frame = figure.add_axes((left + 0.003, top - tall + 0.006, width - 0.006, tall - 0.012))
        frame.set(xticks=[], yticks=[], facecolor="white")
        frame.set_title(panel["title"], loc="left", fontsize=8, y=1.0, pad=-10, x=0.02)
        for side in frame.spines.values():
            side.set(visible=True, color="#d8d9da")
        series = [
            (legend(target.get("legendFormat") or "", line["metric"]), line["values"])
            for target in panel["targets"]
            for line in over_time(url, target["expr"], between)
        ]
        unit = panel["fieldConfig"]["defaults"]["unit"]
        if panel["type"] == "stat":
            draw_figure(frame, series, panel)
        else:
            inner = frame.inset_axes((0.11, 0.3, 0.86, 0.54))
            draw_curves(inner, series, unit, stacked="stacking" in panel["fieldConfig"]["defaults"]["custom"])
    return figure


def numbers(values: list[Any]) -> tuple[list[datetime], list[float]]:
    """Times and values of a series, with a break in the curve where it had none."""
    times: list[datetime] = []
    found: list[float] = []
    for at, value in values:
        when = datetime.fromtimestamp(at, UTC)
        if times and (when - times[-1]).total_seconds() > STEP:
            times.append(when)
            found.append(math.nan)
        times.append(when)
        found.append(float(value))
    return times, found


def draw_figure(frame: Axes, series: list[Any], panel: dict[str, Any]) -> None:
    """The last value, large, in the colour of its threshold."""
    defaults = panel["fieldConfig"]["defaults"]
    value = float(series[0][1][-1][1])
    steps = defaults.get("thresholds", {}).get("steps", [])
    passed = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    colours = {"green": "#56a64b", "orange": "#ff780a", "red": "#e02f44"}
    colour = colours[passed[-1]] if passed else "#1f60c4"
    frame.text(0.5, 0.38, short(value, defaults["unit"]), ha="center", va="center", fontsize=17, color=colour)


def draw_curves(axes: Axes, series: list[Any], unit: str, *, stacked: bool) -> None:
    """Curves over time, one on the other where they are parts of a whole."""
    series = sorted(series, key=lambda line: -sum(float(value) for _, value in line[1] if value != "NaN"))
    colour = dict(zip((name for name, _ in series), COLOURS * 3, strict=False))
    if stacked:
        times = sorted({at for _, values in series for at, _ in values})
        by_time = [{at: float(value) for at, value in values} for _, values in series]
        stamps = [datetime.fromtimestamp(at, UTC) for at in times]
        parts = [[found.get(at, 0.0) for at in times] for found in by_time]
        axes.stackplot(
            stamps, parts, labels=[name for name, _ in series], colors=list(colour.values()), alpha=0.6
        )
    else:
        for name, values in series:
            axes.plot(*numbers(values), label=name, color=colour[name], linewidth=0.9)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value, unit)))
    axes.xaxis.set_major_locator(dates.AutoDateLocator(maxticks=5, interval_multiples=True))
    axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M:%S"))
    axes.tick_params(labelsize=6, length=2)
    axes.grid(alpha=0.25, linewidth=0.5)
    handles, names = axes.get_legend_handles_labels()
    axes.legend(
        handles[:MOST],
        names[:MOST],
        loc="upper left",
        bbox_to_anchor=(-0.1, -0.17),
        ncols=3,
        fontsize=5.5,
        frameon=False,
        handlelength=1,
    )


async def perform(scene: Stage) -> None:
    """Play a round, and take pictures while an upstream is out."""
    async with asyncio.TaskGroup() as both:
        both.create_task(play(scene, ACT, 7 * ACT))
        await asyncio.sleep(BEFORE_OUT * ACT)  # noqa: TID251 - of the real run
        await asyncio.to_thread(live.main, scene.gateway.url, ADMIN_KEY, str(FOLDER))


def main() -> None:
    """Run the demo and draw what its Prometheus has seen."""
    argparse.ArgumentParser(description="Draws the dashboards of a demo.").parse_args()
    folder = FOLDER / "dashboards"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, stage(Path(place)) as scene:
        if scene.prometheus is None:
            raise SystemExit("There is no prometheus on the PATH: apt-get install prometheus")
        start = time.time()  # noqa: TID251 - of the real run
        asyncio.run(perform(scene))
        end = time.time()  # noqa: TID251
        for name, board in boards().items():
            figure = draw_board(board, scene.prometheus, (start + 5, end))
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None}, facecolor=figure.get_facecolor())
            plt.close(figure)


if __name__ == "__main__":
    main()

"""How a panel is written here; grafana-foundation-sdk makes Grafana's JSON of it."""

# ruff: noqa: INP001 - beside a script
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
)

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
Built = TypeVar("Built", stat.Panel, timeseries.Panel)
Unit = Literal["short", "s", "percentunit", "reqps", "cps", "currencyUSD", "bytes", "watt", "watth", "joule"]


@dataclass(frozen=True)
class Query:
    """PromQL, and what its series are called: ``{{label}}`` stands for a label's value."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One picture. ``queries`` may be PromQL alone; ``steps`` are values from which on it is orange and red.

    ``width`` is of 24 columns. A ``stat`` is a figure, all others are curves over time.
    """

    title: str
    queries: Sequence[Query]
    unit: Unit = "short"
    about: str = ""
    stat: bool = False
    stacked: bool = False
    width: int = 8
    steps: tuple[float, float] | None = None
    most: float | None = None


@dataclass(frozen=True)
class Board:
    """One dashboard; its ``uid`` is the name of its file."""

    uid: str
    title: str
    about: str
    panels: Sequence[Panel]
    tags: Sequence[str] = field(default=("tidegate",))


def figure(title: str, expr: str, unit: Unit = "short", **more: object) -> Panel:
    """A figure, six of which fill a row."""
    return Panel(title, [Query(expr)], unit, stat=True, width=4, **more)  # type: ignore[arg-type]


def build(board: Board) -> dashboard.Dashboard:
    """The dashboard as the SDK's builder."""
    built = (
        dashboard.Dashboard(f"Tidegate: {board.title}")
        .uid(f"tidegate-{board.uid}")
        .description(board.about)
        .tags(list(board.tags))
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .readonly()
        .link(dashboard.DashboardLink("Tidegate").type(DashboardLinkType.DASHBOARDS).tags(["tidegate"]))
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for panel in board.panels:
        built.with_panel(_figure(panel) if panel.stat else _curves(panel))
    return built


def _figure(panel: Panel) -> stat.Panel:
    built = stat.Panel().graph_mode(shapes.BigValueGraphMode.AREA).no_value("none")
    return _finish(built, panel, height=4)


def _curves(panel: Panel) -> timeseries.Panel:
    legend = common.VizLegendOptions().show_legend(True).placement(shapes.LegendPlacement.BOTTOM)
    legend.display_mode(shapes.LegendDisplayMode.LIST).calcs([])
    built = timeseries.Panel().line_width(1).fill_opacity(30 if panel.stacked else 8).min(0).legend(legend)
    built.show_points(shapes.VisibilityMode.NEVER)
    if panel.stacked:
        built.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL))
    return _finish(built, panel, height=8)


def _finish(built: Built, panel: Panel, height: int) -> Built:
    built.title(panel.title).description(panel.about).unit(panel.unit).datasource(SOURCE)
    built.span(panel.width).height(height)
    if panel.most is not None:
        built.max(panel.most)
    if panel.steps is not None:
        built.thresholds(_thresholds(*panel.steps))
    for number, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(65 + number))
        if "histogram_quantile" in query.expr:
            target.exemplar(True)
        built.with_target(target)
    return built


def _thresholds(warn: float, bad: float) -> dashboard.ThresholdsConfig:
    """Green, orange, red by rising values; the other way round where ``bad`` is the lower one."""
    colours = ("green", "orange", "red") if bad > warn else ("red", "orange", "green")
    low, high = sorted((warn, bad))
    steps = [
        Threshold(value=value, color=colour) for value, colour in zip((None, low, high), colours, strict=True)
    ]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)

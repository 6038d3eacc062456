"""The dashboards' queries, asked of a real Prometheus."""

import json
from dataclasses import dataclass
from typing import Any

import httpx

from tests.kit.processes import ROOT

FOLDER = ROOT / "deploy/grafana/dashboards"


@dataclass(frozen=True)
class Asked:
    """One query of one panel."""

    board: str
    panel: str
    expr: str
    legend: str


def boards() -> dict[str, dict[str, Any]]:
    """Each dashboard's JSON, by the name of its file."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("*.json"))}


def queries() -> list[Asked]:
    """Every query of every panel."""
    return [
        Asked(name, panel["title"], target["expr"], target.get("legendFormat", ""))
        for name, board in boards().items()
        for panel in board["panels"]
        for target in panel["targets"]
    ]


def over_time(url: str, expr: str, between: tuple[float, float], rate: str = "15s") -> list[Any]:
    """The series that a query gives, second by second, as Prometheus's API tells them.

    ``between`` are the times, in seconds since the epoch; ``rate`` stands for Grafana's interval.
    """
    start, end = between
    said = {"query": expr.replace("$__rate_interval", rate), "start": start, "end": end, "step": 1}
    answer = httpx.get(f"{url}/api/v1/query_range", params=said, timeout=30).json()
    assert answer["status"] == "success", f"{expr}: {answer.get('error')}"
    found: list[Any] = answer["data"]["result"]
    return found


def has_data(series: list[Any]) -> bool:
    """Whether any point of a query's series is a number."""
    return any(value not in {"NaN", "+Inf", "-Inf"} for line in series for _, value in line["values"])

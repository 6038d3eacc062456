"""The series that the gateway may tell, and what it tells."""

import re

import httpx
from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase

from gateway.metrics import Metrics

_PARTS = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def series_of_the_gateway() -> set[str]:
    """Every series of the gateway, and whether its model servers are up."""
    registry = Metrics().registry
    families: list[Metric] = [
        family
        for metric in registry._collector_to_names
        if isinstance(metric, MetricWrapperBase)
        for family in metric.describe()
    ]
    return {"tidegate_local_up"} | {
        f"{family.name}{part}" for family in families for part in _PARTS[family.type]
    }


def total(client: httpx.Client, name: str) -> float:
    """What the series of a name add up to."""
    found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return sum(map(float, found))

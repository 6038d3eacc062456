"""Writes the tables of docs/metrics.md from the metrics that the gateway registers.

python docs/generate_metrics.py            # rewrites the page

python docs/generate_metrics.py --check    # exit code 1 when the page is out of step
"""

# ruff: noqa: INP001 - a script
import sys
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import Histogram
from prometheus_client.metrics import MetricWrapperBase

from gateway.metrics import Metrics

PAGE = Path(__file__).parent / "metrics.md"
BEGIN, END = "<!-- metrics: begin -->", "<!-- metrics: end -->"

GROUPS = {
    "Calls": (
        "gen_ai_",
        "tidegate_requests",
        "tidegate_tier_requests",
        "tidegate_inflight",
        "tidegate_overhead",
        "tidegate_queue",
    ),
    "Cache": ("tidegate_cache_",),
    "Upstreams": ("tidegate_upstream_",),
    "Admission": ("tidegate_admission_", "tidegate_token_estimate_"),
    "Limits": ("tidegate_limit_", "tidegate_reservation_", "tidegate_store_", "tidegate_settlements_"),
    "Usage and its ledger": ("tidegate_usage_", "tidegate_energy_", "tidegate_ledger_"),
    "What was done about failures": ("",),
}
"""Headings in the page's order, and how the names below them begin; the first that fits takes a metric."""


def registered() -> list[MetricWrapperBase]:
    """Every metric that the gateway can expose, in the order of its registration."""
    registry = Metrics().registry
    return [metric for metric in registry._collector_to_names if isinstance(metric, MetricWrapperBase)]  # noqa: SLF001


def tables() -> str:
    """One Markdown table for each group."""
    rows: dict[str, list[str]] = {heading: [] for heading in GROUPS}
    for metric in registered():
        (family,) = metric.describe()
        heading = next(heading for heading, starts in GROUPS.items() if family.name.startswith(starts))
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(f"`{label}`" for label in metric._labelnames) or "none"  # noqa: SLF001
        rows[heading].append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    parts = [
        f"### {heading}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n" + "\n".join(found)
        for heading, found in rows.items()
        if found
    ]
    return "\n\n".join([*parts, "### Buckets", _buckets()])


def _buckets() -> str:
    return "\n".join(
        f"- `{metric.describe()[0].name}`: {', '.join(_bounds(metric))}"
        for metric in registered()
        if isinstance(metric, Histogram)
    )


def _bounds(metric: Histogram) -> Iterator[str]:
    return (f"{bound:.10g}" for bound in metric._upper_bounds[:-1])  # noqa: SLF001


def page() -> str:
    """The page as it should be."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def main() -> int:
    """Write or check the page; the exit code."""
    if "--check" in sys.argv[1:]:
        return int(page() != PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

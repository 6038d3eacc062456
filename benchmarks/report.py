"""Show what was measured: tables for the terminal and the documentation, the project's bars, a picture.

The documentation's figures are never typed; they are written between two marks of a page from the JSON
that the programs leave:

    python benchmarks/report.py compare.json streams.json soak.json --docs docs/benchmarks.md

A ``--picture`` is drawn, and shown on that page.
"""

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import median
from rich.console import Console
from rich.table import Table

Results = dict[str, Any]

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
OURS = "tidegate"


@dataclass(frozen=True)
class Bar:
    """One thing that the project promises of its cost; ``holds`` is None where it wasn't measured."""

    promise: str
    measured: str
    holds: bool | None

    @property
    def verdict(self) -> str:
        """Yes, no, or not measured."""
        return "not measured" if self.holds is None else "yes" if self.holds else "**no**"


def bars(comparison: Results, streams: Results, soak: Results) -> list[Bar]:
    """The project's bars, each with what was measured."""
    rows = {row["name"]: row for row in comparison.get("peers", [])}
    return [
        _at_most("CPU of a unary request at most 2.0 times smg's", rows, "unary_cpu_us", "smg", 2.0),
        _times_less("CPU of a unary request at least 20 times less than LiteLLM's", rows, "unary_cpu_us", 20),
        _at_most("CPU of a 64-chunk stream at most 1.3 times smg's", rows, "stream_cpu_us", "smg", 1.3),
        _times_less(
            "CPU of a 64-chunk stream at least 60 times less than LiteLLM's", rows, "stream_cpu_us", 60
        ),
        _below("added latency, median, under 1 ms at half the saturation rate", rows, "added_p50_ms", 1.0),
        _below(
            "added latency, 99th percentile, under 5 ms at half the saturation rate",
            rows,
            "added_p99_ms",
            5.0,
        ),
        _streams_bar(streams),
        _soak_bar(soak),
    ]


def _figure(rows: dict[str, Results], name: str, key: str) -> float:
    return median(rows.get(name, {}).get(key, []))


def _at_most(promise: str, rows: dict[str, Results], key: str, other: str, bound: float) -> Bar:
    ours, theirs = _figure(rows, OURS, key), _figure(rows, other, key)
    if not (ours and theirs):
        return Bar(promise, "", None)
    return Bar(promise, f"{ours / theirs:.2f} times", ours / theirs <= bound)


def _times_less(promise: str, rows: dict[str, Results], key: str, bound: float) -> Bar:
    ours, theirs = _figure(rows, OURS, key), _figure(rows, "litellm", key)
    if not (ours and theirs):
        return Bar(promise, "", None)
    return Bar(promise, f"{theirs / ours:.0f} times less", theirs / ours >= bound)


def _below(promise: str, rows: dict[str, Results], key: str, bound: float) -> Bar:
    if not rows.get(OURS, {}).get(key):
        return Bar(promise, "", None)
    value = _figure(rows, OURS, key)
    return Bar(promise, f"{value:.2f} ms", value < bound)


def _streams_bar(streams: Results) -> Bar:
    promise = "1,000 concurrent streams on one worker, none lost or altered"
    if not streams:
        return Bar(promise, "", None)
    told = f"{streams['completed']:,} whole, {streams['corrupted']} altered, {streams['lost']} lost"
    return Bar(promise, told, streams["completed"] == streams["streams"] >= 1000)


def _soak_bar(soak: Results) -> Bar:
    promise = "resident memory flat over 200,000 requests"
    if not soak:
        return Bar(promise, "", None)
    told = f"{soak['growth_mib']:+.1f} MiB from a quarter of {soak['requests']:,} requests to the end"
    return Bar(promise, told, bool(soak["flat"]) and soak["requests"] >= 200_000)


HEADINGS = [
    "gateway",
    "version",
    "unary µs",
    "stream µs",
    "req/s",
    "added ms, p50 / p99",
    "at req/s",
    "RSS MiB",
    "errors",
]


def cells(row: Results, rows: dict[str, Results]) -> list[str]:
    """One gateway's line of the table."""
    if row["unavailable"]:
        return [row["title"], row["version"], row["unavailable"], *[""] * (len(HEADINGS) - 3)]
    errors = sum(row["errors"].values())
    p50, p99 = median(row["added_p50_ms"]), median(row["added_p99_ms"])
    return [
        row["title"],
        row["version"],
        _microseconds(row, rows, "unary_cpu_us"),
        _microseconds(row, rows, "stream_cpu_us"),
        f"{median(row['unary_per_second']):,.0f}" if row["unary_per_second"] else "-",
        f"{p50:.2f} / {p99:.2f}" if row["added_p50_ms"] else "-",
        f"{row['latency_rate']:,.0f}" if row["latency_rate"] else "-",
        f"{row['resident_start_mib']:.0f} → {row['resident_end_mib']:.0f}",
        "0" if not errors else f"{errors:,} of {errors + row['requests']:,} (!)",
    ]


def _microseconds(row: Results, rows: dict[str, Results], key: str) -> str:
    if not row[key]:
        return "-"
    ratio = "" if row["name"] == OURS else _ratio(row, rows, key)
    return f"{median(row[key]):,.0f}" + (f" ({ratio})" if ratio else "")


def _ratio(row: Results, rows: dict[str, Results], key: str) -> str:
    ours, theirs = _figure(rows, OURS, key), median(row[key])
    if not (ours and theirs):
        return ""
    return f"{theirs / ours:.2f}x" if theirs < 10 * ours else f"{theirs / ours:,.0f}x"


def print_comparison(results: Results) -> None:
    """Print the table, the errors and the bars that this run could tell."""
    rows = {row["name"]: row for row in results["peers"]}
    console = Console(width=max(130, Console().width), highlight=False)
    table = Table(title=f"CPU of the gateway per request, one core each, {results['date']}")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in HEADINGS[:2] else "right")
    for row in results["peers"]:
        if row["unavailable"]:
            table.add_row(row["title"], row["version"], "unavailable, see below", style="dim")
        else:
            style = "bold" if row["name"] == OURS else "red" if row["errors"] else None
            table.add_row(*cells(row, rows), style=style)
    console.print(table)
    for row in results["peers"]:
        if row["unavailable"]:
            console.print(f"{row['title']}: {row['unavailable']}", markup=False)
        for fault, times in row["errors"].items():
            console.print(f"{row['title']}: {times:,} x {fault}", markup=False)
    for bar in bars(results, {}, {}):
        if bar.holds is not None:
            console.print(
                f"{'holds' if bar.holds else 'MISSED':7} {bar.promise}: {bar.measured}", markup=False
            )


def markdown(comparison: Results, streams: Results, soak: Results) -> str:
    """The figures as they stand in the documentation."""
    rows = {row["name"]: row for row in comparison["peers"]}
    machine, plan = comparison["machine"], comparison["plan"]
    measured = (
        f"Measured on {comparison['date']}: {machine['cpu']}, {machine['cores']} cores, {machine['memory']}, "
        f"Linux {machine['kernel']}; {plan['rounds']} rounds of {plan['seconds']} s, "
        f"{plan['connections']} connections, medians."
    )
    lines = [
        measured,
        "",
        "    " + comparison["command"].strip(),
        "",
        _line(HEADINGS),
        _line(["---", "---", *["---:"] * (len(HEADINGS) - 2)]),
        *(_line(cells(row, rows)) for row in comparison["peers"]),
        "",
        _line(["bar", "measured", "holds"]),
        _line(["---"] * 3),
        *(_line([bar.promise, bar.measured, bar.verdict]) for bar in bars(comparison, streams, soak)),
    ]
    if streams:
        lines += ["", _streams_text(streams)]
    if soak:
        lines += ["", _soak_text(soak)]
    return "\n".join(lines)


def _line(texts: list[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def _streams_text(streams: Results) -> str:
    return (
        f"{streams['streams']:,} streams at once, a chunk every {streams['chunk_interval_ms']:g} ms: done in "
        f"{streams['seconds']:.1f} s, first byte after {streams['ttft_p50_ms']:.0f} ms (median) and "
        f"{streams['ttft_p99_ms']:.0f} ms (99th percentile), against {streams['direct_ttft_p50_ms']:.0f} and "
        f"{streams['direct_ttft_p99_ms']:.0f} ms without a gateway; "
        f"peak memory {streams['resident_peak_mib']:.0f} MiB."
    )


def _soak_text(soak: Results) -> str:
    series = ", ".join(f"{requests // 1000}k: {mib:.1f}" for requests, mib in soak["series"])
    return f"Resident MiB of the gateway after so many requests: {series}."


def draw(results: Results, path: Path) -> None:
    """Draw CPU per unary request and per stream, least first, as bars on a logarithmic scale."""
    try:
        import matplotlib as mpl  # noqa: PLC0415  (only where a picture is asked for)
        from matplotlib import pyplot as plt  # noqa: PLC0415
    except ImportError:
        print("no picture: matplotlib is not installed (pip install --group bench)", file=sys.stderr)
        return
    mpl.use("Agg")
    rows = {row["name"]: row for row in results["peers"]}
    style: dict[Any, Any] = {
        "font.size": 10,
        "font.family": "DejaVu Sans",
        "svg.hashsalt": "tidegate",
        "svg.fonttype": "path",
    }
    with mpl.rc_context(rc=style):
        figure, panels = plt.subplots(1, 2, figsize=(11, 3.6), constrained_layout=True)
        figure.suptitle("CPU microseconds of the gateway, less is better (logarithmic)", fontsize=11)
        kinds = (("unary_cpu_us", "a unary chat completion"), ("stream_cpu_us", "a stream of 64 chunks"))
        for panel, (key, title) in zip(panels, kinds, strict=True):
            _panel(panel, [row for row in results["peers"] if row[key]], rows, key)
            panel.set_title(title, loc="left", fontsize=10)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(figure)


def _panel(panel: Any, rows: list[Results], every: dict[str, Results], key: str) -> None:
    ordered = sorted(rows, key=lambda row: -median(row[key]))
    values = [median(row[key]) for row in ordered]
    colours = ["#0b7285" if row["name"] == OURS else "#adb5bd" for row in ordered]
    drawn = panel.barh([row["title"] for row in ordered], values, color=colours)
    labels = [_microseconds(row, every, key) for row in ordered]
    panel.bar_label(drawn, labels, padding=4, fontsize=9)
    panel.set_xscale("log")
    panel.set_xlim(10, max(values, default=1.0) * 12)
    panel.spines[["top", "right"]].set_visible(False)


def write_docs(path: Path, text: str) -> None:
    """Put the figures between the marks of a page; raises ValueError if it has no marks."""
    page = path.read_text()
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path} has no {BEGIN} and {END}")
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def main() -> int:
    """Read results and show them; 1 if a bar was measured and missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("comparison", type=Path, help="of compare.py")
    parser.add_argument("streams", type=Path, nargs="?", help="of streams.py")
    parser.add_argument("soak", type=Path, nargs="?", help="of soak.py")
    parser.add_argument("--docs", type=Path, help="page whose figures are replaced")
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    files = (arguments.comparison, arguments.streams, arguments.soak)
    comparison, streams, soak = (json.loads(path.read_text()) if path else {} for path in files)
    text = markdown(comparison, streams, soak)
    if arguments.picture:
        draw(comparison, arguments.picture)
    if arguments.docs and arguments.picture:
        source = os.path.relpath(arguments.picture, arguments.docs.parent)
        text = f"![CPU per request of each gateway]({source})\n\n{text}"
    if arguments.docs:
        write_docs(arguments.docs, text)
    else:
        print(text)
    return 1 if any(bar.holds is False for bar in bars(comparison, streams, soak)) else 0


if __name__ == "__main__":
    sys.exit(main())

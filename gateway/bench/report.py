"""A run's figures, as a table for people and as JSON for programs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gateway import __version__
from gateway.bench.measure import PERCENTILES, Distribution, Summary, summarize
from gateway.bench.plan import Plan
from gateway.bench.sample import Sample
from gateway.bench.slo import Slo

_LATE = 0.01


@dataclass(frozen=True, slots=True)
class Run:
    """What was run, when, and what happened. ``began`` is on the samples' clock."""

    url: str
    model: str
    plan: Plan
    slo: Slo | None
    at: str
    began: float
    ended: float
    samples: Sequence[Sample]

    @property
    def summary(self) -> Summary:
        """Its figures."""
        return summarize(self.samples, self.ended - self.began, self.slo)


def table(run: Run) -> RenderableType:
    """The figures for a terminal."""
    summary = run.summary
    parts: list[RenderableType] = [
        f"[bold]{escape(run.model)}[/] at {escape(run.url)}: {run.plan.load}, {summary.seconds:.1f} s",
        _rates(summary, run.slo),
        _times(summary),
    ]
    if summary.errors:
        parts.append(_errors(summary))
    late = summary.late
    if late and late.percentiles[99] > _LATE:
        told = f"The generator itself sent late: p99 {seconds(late.percentiles[99])}. The times include it."
        parts.append(Text(told, "yellow"))
    return Group(*parts)


def _rates(summary: Summary, slo: Slo | None) -> Table:
    grid = Table.grid(padding=(0, 2))
    answered = f"{summary.answered:,} of {summary.sent:,}"
    grid.add_row("answered whole", answered, f"{summary.per_second(summary.answered):.2f} requests/s")
    if summary.kept_slo is not None:
        share = summary.kept_slo / summary.sent if summary.sent else 0.0
        rate = summary.per_second(summary.kept_slo)
        grid.add_row("goodput", f"{summary.kept_slo:,} ({share:.1%})", f"{rate:.2f} requests/s with {slo}")
    for name, tokens in (("tokens out", summary.output_tokens), ("tokens in", summary.prompt_tokens)):
        grid.add_row(name, f"{tokens:,}", f"{summary.per_second(tokens):.1f} tokens/s")
    if summary.postponed:
        grid.add_row("told to come back", f"{summary.postponed:,}", "and came; the wait counts")
    return grid


def _times(summary: Summary) -> Table:
    shown = Table("", "mean", *(f"p{each}" for each in PERCENTILES), "max")
    for column in shown.columns[1:]:
        column.justify = "right"
    rows: tuple[tuple[str, Distribution | None], ...] = (
        ("TTFT", summary.ttft),
        ("ITL", summary.itl),
        ("longest gap", summary.longest_gap),
        ("whole answer", summary.total),
    )
    for name, found in rows:
        if found is None:
            shown.add_row(name, *["-"] * (len(PERCENTILES) + 2))
        else:
            values = (found.mean, *(found.percentiles[each] for each in PERCENTILES), found.most)
            shown.add_row(name, *map(seconds, values))
    return shown


def _errors(summary: Summary) -> Table:
    shown = Table("error", "requests", style="red")
    shown.columns[1].justify = "right"
    for fault, count in summary.errors.items():
        shown.add_row(escape(fault), f"{count:,}")
    if summary.truncated:
        shown.caption = f"{summary.truncated:,} of them had begun to answer"
    return shown


def seconds(value: float) -> str:
    """A time with three digits, in the unit that suits it."""
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        amount = value * factor
        if amount >= 1 or unit == "µs":
            break
    digits = next(digits for digits, bound in ((2, 10), (1, 100), (0, inf)) if amount < bound)
    return f"{amount:.{digits}f} {unit}"


def document(run: Run) -> dict[str, Any]:
    """Everything, request by request; times in seconds, counted from the run's beginning."""
    summary = run.summary
    figures = asdict(summary)
    for value in figures.values():
        if isinstance(value, dict) and "percentiles" in value:
            value["percentiles"] = {f"p{each}": time for each, time in value["percentiles"].items()}
    rates = {
        "requests": summary.per_second(summary.answered),
        "prompt_tokens": summary.per_second(summary.prompt_tokens),
        "output_tokens": summary.per_second(summary.output_tokens),
    }
    if summary.kept_slo is not None:
        rates["goodput"] = summary.per_second(summary.kept_slo)
    return {
        "tidegate": __version__,
        "at": run.at,
        "url": run.url,
        "model": run.model,
        "plan": asdict(run.plan),
        "slo": None if run.slo is None else asdict(run.slo),
        "summary": figures,
        "per_second": rates,
        "requests": [_request(sample, run.began) for sample in run.samples],
    }


def _request(sample: Sample, began: float) -> dict[str, Any]:
    told = asdict(sample)
    for name in ("due", "sent", "ended", "first", "last"):
        told[name] = None if told[name] is None else round(told[name] - began, 6)
    return told

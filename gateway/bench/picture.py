"""A run drawn as SVG: how long each user waited, and what share of them waited how long.

Drawn by hand, since dots and steps need no plotting library. The colours follow the reader's light or dark.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from gateway.bench.chart import Axis, Panel
from gateway.bench.report import Run, seconds
from gateway.bench.sample import Sample

_WIDTH, _HEIGHT = 880, 360
_STYLE = """\
svg{--ink:#1f2933;--dim:#7b8794;--line:#e4e7eb;--paper:#fff;--good:#0b7285;--slow:#e8890c;--bad:#d6336c;
--other:#5f3dc4;font:12px system-ui,sans-serif;fill:var(--ink)}
@media(prefers-color-scheme:dark){svg{--ink:#e4e7eb;--dim:#9aa5b1;--line:#323f4b;--paper:#15191e;
--good:#3bc9db;--slow:#ffc078;--bad:#faa2c1;--other:#b197fc}}
.paper{fill:var(--paper)}.title{font-size:15px;font-weight:600}.dim{fill:var(--dim)}
.grid{stroke:var(--line)}.good{fill:var(--good)}.slow{fill:var(--slow)}.bad{fill:var(--bad)}
.dot{fill-opacity:.75}.step{fill:none;stroke-width:2;stroke-linejoin:round}
.ttft{stroke:var(--good)}.total{stroke:var(--other)}.bound{stroke:var(--slow);stroke-dasharray:4 3}
.end{text-anchor:end}.middle{text-anchor:middle}
text.ttft{stroke:none;fill:var(--good)}text.total{stroke:none;fill:var(--other)}"""


def draw(run: Run) -> str:
    """The picture's text."""
    summary = run.summary
    facts = [
        f"{summary.answered:,} of {summary.sent:,} answered",
        f"{summary.per_second(summary.answered):.1f} requests/s",
        f"{summary.per_second(summary.output_tokens):.0f} tokens/s",
    ]
    if summary.kept_slo is not None:
        facts.append(f"goodput {summary.per_second(summary.kept_slo):.1f} requests/s ({run.slo})")
    title = f"{run.model}: {run.plan.load}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><desc>{escape(', '.join(facts))}</desc><style>{_STYLE}</style>",
        '<rect class="paper" width="100%" height="100%"/>',
        f'<text class="title" x="24" y="30">{escape(title)}</text>',
        f'<text class="dim" x="24" y="50">{escape(" · ".join(facts))}</text>',
        *_waits(run),
        *_shares(run),
        "</svg>",
    ]
    return "\n".join(parts)


def _waits(run: Run) -> list[str]:
    """Each request: when its user came, and when the first token did."""
    waits = [sample.ttft or 0.0 for sample in run.samples]
    came = Axis.over(max((sample.due - run.began for sample in run.samples), default=1.0))
    panel = Panel(64, 96, 370, 210, came, Axis.over(max(waits, default=1.0)))
    parts = panel.frame("time to the first token of each request", f"{{:{came.form}}} s", _label)
    if run.slo is not None and run.slo.ttft is not None and run.slo.ttft <= panel.y.most:
        y = panel.at_y(run.slo.ttft)
        parts.append(f'<path class="bound" d="M{panel.left} {y:.1f}h{panel.width}"/>')
    kinds: dict[str, Callable[[Sample], bool]] = {
        "answered": lambda sample: not sample.fault and _kept(run, sample),
        "later than promised": lambda sample: not sample.fault and not _kept(run, sample),
        "failed": lambda sample: bool(sample.fault),
    }
    left = panel.left
    for (name, belongs), style in zip(kinds.items(), ("good", "slow", "bad"), strict=True):
        dots = [sample for sample in run.samples if belongs(sample)]
        if dots:
            parts += [
                f'<circle class="dot {style}" r="2.6" cx="{panel.at_x(sample.due - run.began):.1f}" '
                f'cy="{panel.at_y(sample.ttft or 0.0):.1f}"/>'
                for sample in dots
            ]
            parts.append(f'<circle class="{style}" r="4" cx="{left + 4}" cy="344"/>')
            parts.append(f'<text class="dim" x="{left + 13}" y="348">{name}</text>')
            left += 32 + 6 * len(name)
    return parts


def _kept(run: Run, sample: Sample) -> bool:
    return run.slo is None or run.slo.kept_by(sample)


def _shares(run: Run) -> list[str]:
    """What share of the answers had their first token, and their end, after how long."""
    whole = [sample for sample in run.samples if not sample.fault]
    curves = [
        _Curve("first token", "ttft", sorted(each.ttft for each in whole if each.ttft is not None)),
        _Curve("whole answer", "total", sorted(each.total for each in whole)),
    ]
    axis = Axis.over(max((curve.values[-1] for curve in curves if curve.values), default=1.0))
    panel = Panel(510, 96, 340, 210, axis, Axis(1.0, 0.25))
    parts = panel.frame("share of the answers that came within", _label, "{:.0%}")
    left = panel.left
    for curve in curves:
        if not curve.values:
            continue
        steps = (
            f"V{panel.at_y(rank / len(curve.values)):.1f}H{panel.at_x(value):.1f}"
            for value, rank in _thinned(curve.values)
        )
        path = f"M{panel.at_x(curve.values[0]):.1f} {panel.at_y(0):.1f}{''.join(steps)}V{panel.at_y(1):.1f}"
        parts.append(f'<path class="step {curve.style}" d="{path}"/>')
        told = f"{curve.name}, median {seconds(curve.values[(len(curve.values) - 1) // 2])}"
        parts.append(f'<text class="{curve.style}" x="{left}" y="348">{told}</text>')
        left += 22 + 6 * len(told)
    return parts


@dataclass(frozen=True, slots=True)
class _Curve:
    name: str
    style: str
    values: Sequence[float]


def _thinned(values: Sequence[float], most: int = 400) -> Iterable[tuple[float, int]]:
    """At most so many of the sorted values, each with how many are before it."""
    step = max(1, len(values) // most)
    return ((values[rank], rank) for rank in [*range(0, len(values), step), len(values) - 1])


def _label(value: float) -> str:
    return "0" if not value else seconds(value).replace(".00 ", " ").replace(".0 ", " ")

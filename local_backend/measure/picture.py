"""Draws what `bench` found as SVG."""

from collections.abc import Sequence
from pathlib import Path

from local_backend.errors import ConfigError
from local_backend.measure.http_load import Level


def require_matplotlib() -> None:
    """Raises ConfigError with what to do when matplotlib is missing."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ConfigError(
            "the picture needs matplotlib: python -m pip install matplotlib, or leave out --picture"
        ) from error
    mpl.use("svg")


def draw(levels: Sequence[Level], title: str, path: Path) -> None:
    """Time to the first token, between tokens, and tokens a second, by answers at once."""
    require_matplotlib()
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(1, 3)
    names = [str(level.batch) for level in levels]
    for axis, label, series in (
        (axes[0], "ms to the first token", _pair(levels, "ttft")),
        (axes[1], "ms between tokens", _pair(levels, "itl")),
        (axes[2], "tokens/s, all answers", {"": [level.tokens_per_second for level in levels]}),
    ):
        for shift, (name, values) in enumerate(series.items()):
            places = [index + (shift - (len(series) - 1) / 2) * 0.38 for index in range(len(values))]
            bars = axis.bar(places, values, width=0.36, label=name)
            axis.bar_label(bars, fmt="%.0f", fontsize=7)
        axis.set_title(label, fontsize=9)
        axis.set_xticks(range(len(names)), names)
        axis.set_xlabel("answers at once", fontsize=8)
        axis.margins(y=0.15)
        if len(series) > 1:
            axis.legend(fontsize=7)
    figure.savefig(path, format="svg")


def _pair(levels: Sequence[Level], name: str) -> dict[str, list[float]]:
    return {
        "median": [getattr(level, f"{name}_median") for level in levels],
        "p95": [getattr(level, f"{name}_p95") for level in levels],
    }

"""A panel of a chart in SVG: axes with round numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor, log10

_TICKS = 5
_ROUNDING = 1e-9
_ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)
Label = Callable[[float], str] | str


@dataclass(frozen=True, slots=True)
class Axis:
    """From 0 to ``most`` in steps."""

    most: float
    step: float

    @classmethod
    def over(cls, largest: float) -> "Axis":
        """An axis that reaches this value, in at most five round steps."""
        if largest < _ROUNDING:
            return cls(1.0, 0.25)
        power = 10.0 ** floor(log10(largest / _TICKS))
        step = next(step * power for step in _ROUND if step * power * _TICKS >= largest * (1 - _ROUNDING))
        return cls(step * max(1, ceil(largest / step - _ROUNDING)), step)

    @property
    def ticks(self) -> list[float]:
        """Where its numbers are."""
        return [number * self.step for number in range(round(self.most / self.step) + 1)]

    @property
    def form(self) -> str:
        """A format with as many decimals as the step has."""
        decimals = next(
            count for count in range(12) if abs(round(self.step, count) / self.step - 1) < _ROUNDING
        )
        return f".{decimals}f"


@dataclass(frozen=True, slots=True)
class Panel:
    """A rectangle with an axis to the right and one upwards."""

    left: float
    top: float
    width: float
    height: float
    x: Axis
    y: Axis

    def at_x(self, value: float) -> float:
        """Where a value is."""
        return self.left + self.width * value / self.x.most

    def at_y(self, value: float) -> float:
        """Where a value is."""
        return self.top + self.height * (1 - value / self.y.most)

    def frame(self, title: str, x_label: Label, y_label: Label) -> list[str]:
        """The grid, its numbers and a title."""
        bottom = self.top + self.height
        parts = [f'<text x="{self.left}" y="{self.top - 14}">{title}</text>']
        for tick in self.y.ticks:
            y = self.at_y(tick)
            parts.append(f'<path class="grid" d="M{self.left} {y:.1f}h{self.width}"/>')
            parts.append(
                f'<text class="dim end" x="{self.left - 8}" y="{y + 4:.1f}">{_told(tick, y_label)}</text>'
            )
        for tick in self.x.ticks:
            x = self.at_x(tick)
            parts.append(
                f'<text class="dim middle" x="{x:.1f}" y="{bottom + 18}">{_told(tick, x_label)}</text>'
            )
        return parts


def _told(value: float, label: Label) -> str:
    return label.format(value) if isinstance(label, str) else label(value)

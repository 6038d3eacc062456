"""What a user is promised. Goodput counts the requests that keep all of it.

DistServe (Zhong et al., OSDI 2024) argues for goodput over throughput: a server that answers everybody too
late has much of the one and none of the other.
"""

from dataclasses import dataclass

from gateway.bench.sample import Sample
from gateway.settings.units import duration

_NAMES = ("ttft", "itl", "total")


@dataclass(frozen=True, slots=True)
class Slo:
    """Upper bounds in seconds; None promises nothing."""

    ttft: float | None = None
    itl: float | None = None
    total: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Slo":
        """Read `ttft=1s,itl=100ms`; ValueError for anything else."""
        bounds: dict[str, float] = {}
        for part in text.split(","):
            name, _, bound = part.strip().partition("=")
            if name not in _NAMES:
                raise ValueError(f"{name!r} isn't one of {', '.join(_NAMES)}; write ttft=1s,itl=100ms")
            try:
                bounds[name] = duration(bound)
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None
        return cls(**bounds)

    def kept_by(self, sample: Sample) -> bool:
        """Whether a request was answered, whole and in time."""
        if sample.fault or sample.ttft is None:
            return False
        measured = (sample.ttft, self.ttft), (sample.itl, self.itl), (sample.total, self.total)
        return all(value is None or bound is None or value <= bound for value, bound in measured)

    def __str__(self) -> str:
        bounds = {name: getattr(self, name) for name in _NAMES}
        return ", ".join(f"{name} ≤ {_written(bound)}" for name, bound in bounds.items() if bound is not None)


def _written(seconds: float) -> str:
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1000:g} ms"

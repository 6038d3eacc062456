"""The figures of a run. Times are of the requests that were answered whole; all others are in ``errors``."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from gateway.bench.sample import Sample
from gateway.bench.slo import Slo

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class Distribution:
    """Some measured times, in seconds."""

    count: int
    mean: float
    least: float
    most: float
    percentiles: dict[int, float]

    @classmethod
    def of(cls, values: Iterable[float]) -> "Distribution | None":
        """Of these; None of none."""
        ordered = sorted(values)
        if not ordered:
            return None
        return cls(
            count=len(ordered),
            mean=sum(ordered) / len(ordered),
            least=ordered[0],
            most=ordered[-1],
            percentiles={each: percentile(ordered, each) for each in PERCENTILES},
        )


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The nearest-rank percentile of sorted values: the least one that ``percent`` of them don't exceed."""
    return ordered[max(0, ceil(percent * len(ordered) / 100) - 1)]


@dataclass(frozen=True, slots=True)
class Summary:
    """A run in figures. ``seconds`` is its whole length, the wait for the last answers included.

    ``truncated`` are those of the errors that had begun as answers.
    """

    seconds: float
    sent: int
    answered: int
    errors: dict[str, int]
    truncated: int
    postponed: int
    prompt_tokens: int
    output_tokens: int
    kept_slo: int | None
    ttft: Distribution | None
    itl: Distribution | None
    longest_gap: Distribution | None
    total: Distribution | None
    late: Distribution | None

    def per_second(self, amount: float) -> float:
        """A sum as a rate."""
        return amount / self.seconds if self.seconds else 0.0


def summarize(samples: Sequence[Sample], seconds: float, slo: Slo | None) -> Summary:
    """The figures of these requests, which took ``seconds`` together."""
    whole = [sample for sample in samples if not sample.fault]
    errors = Counter(sample.fault for sample in samples if sample.fault)
    return Summary(
        seconds=seconds,
        sent=len(samples),
        answered=len(whole),
        errors=dict(errors.most_common()),
        truncated=sum(bool(sample.fault) and sample.first is not None for sample in samples),
        postponed=sum(sample.postponed for sample in samples),
        prompt_tokens=sum(sample.prompt_tokens for sample in whole),
        output_tokens=sum(sample.output_tokens for sample in whole),
        kept_slo=None if slo is None else sum(map(slo.kept_by, samples)),
        ttft=Distribution.of(sample.ttft for sample in whole if sample.ttft is not None),
        itl=Distribution.of(sample.itl for sample in whole if sample.itl is not None),
        longest_gap=Distribution.of(sample.longest_gap for sample in whole if sample.longest_gap is not None),
        total=Distribution.of(sample.total for sample in whole),
        late=Distribution.of(sample.late for sample in samples),
    )

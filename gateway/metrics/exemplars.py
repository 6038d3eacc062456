"""Exemplars: for each bucket of a histogram the trace of the last kept call that fell into it.

prometheus-client keeps none where workers share files. So each worker writes its own beside them, and
whoever is asked puts the newest of all to the buckets. OpenMetrics' text format has them, Prometheus's not.
"""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import orjson
from prometheus_client import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from gateway.metrics.series import HistogramTally, take_traced

_Series = tuple[str, frozenset[tuple[str, str]]]
"""A series by its name and labels."""


class Exemplars:
    """Those of this worker; with several, ``folder`` is where they show each other theirs."""

    def __init__(self, wall_time: Callable[[], float], folder: Path | None) -> None:
        self._wall_time = wall_time
        self._folder = folder
        self._own: dict[_Series, Exemplar] = {}

    def gather(self) -> None:
        """Take in what was traced since the last time; their times are this one."""
        taken = take_traced()
        if not taken:
            return
        now = self._wall_time()
        for (tally, bucket), (trace, value) in taken.items():
            self._own[_series_of(tally, bucket)] = Exemplar({"trace_id": trace}, value, now)
        if self._folder is not None:
            with suppress(OSError):  # a full disk: others show older ones
                self._write(self._folder / f"exemplars_{os.getpid()}.json")

    def all(self) -> dict[_Series, Exemplar]:
        """The newest of all workers, by their series."""
        found: dict[_Series, Exemplar] = {}
        for exemplars in [self._own, *self._others()]:
            for series, exemplar in exemplars.items():
                if series not in found or _at(found[series]) < _at(exemplar):
                    found[series] = exemplar
        return found

    def _others(self) -> Iterable[dict[_Series, Exemplar]]:
        if self._folder is None:
            return
        for file in self._folder.glob("exemplars_*.json"):
            yield {
                (name, frozenset(labels.items())): Exemplar({"trace_id": trace}, value, at)
                for name, labels, trace, value, at in orjson.loads(file.read_bytes())
            }

    def _write(self, file: Path) -> None:
        fresh = file.with_suffix(".new")
        fresh.write_bytes(
            orjson.dumps(
                [
                    (name, dict(labels), exemplar.labels["trace_id"], exemplar.value, exemplar.timestamp)
                    for (name, labels), exemplar in self._own.items()
                ]
            )
        )
        fresh.replace(file)


class Exemplified(Collector):
    """What ``collectors`` tell, with exemplars where there are some."""

    def __init__(self, collectors: Iterable[Collector], exemplars: dict[_Series, Exemplar]) -> None:
        self._collectors = collectors
        self._exemplars = exemplars

    def collect(self) -> Iterable[Metric]:
        """All families, one after the other."""
        for collector in self._collectors:
            for family in collector.collect():
                if self._exemplars and family.type == "histogram":
                    family.samples = [
                        sample._replace(
                            exemplar=self._exemplars.get((sample.name, frozenset(sample.labels.items())))
                        )
                        for sample in family.samples
                    ]
                yield family


def _series_of(tally: HistogramTally, bucket: int) -> _Series:
    histogram = tally.histogram
    labels = zip(histogram._labelnames, histogram._labelvalues, strict=True)  # noqa: SLF001 - it has no other
    bound = floatToGoString(histogram._upper_bounds[bucket])  # type: ignore[no-untyped-call] # noqa: SLF001
    return f"{histogram._name}_bucket", frozenset([*labels, ("le", bound)])  # noqa: SLF001


def _at(exemplar: Exemplar) -> float:
    """When it was, in seconds since the epoch."""
    return float(exemplar.timestamp or 0.0)

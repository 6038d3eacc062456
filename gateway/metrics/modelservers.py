"""Series of the bundled model servers: what they tell of themselves, with the provider's name as a label.

Their ports are not known beforehand and only loopback reaches them, so the gateway tells for them.
"""

from collections.abc import Iterable, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_PROVIDER = "provider"


class ModelServerSeries(Collector):
    """``told`` is what each server answers at its /metrics, by its provider; None where it doesn't answer."""

    def __init__(self, told: Mapping[str, str | None]) -> None:
        self._told = told

    def collect(self) -> Iterable[Metric]:
        """Whether each server is up, and the servers' own series, those of a name together.

        Nothing where there is no bundled model.
        """
        if not self._told:
            return
        up = GaugeMetricFamily(
            "tidegate_local_up", "Whether the provider's model server answers.", labels=[_PROVIDER]
        )
        families: dict[str, Metric] = {}
        for provider, text in self._told.items():
            up.add_metric([provider], float(text is not None))
            for told in text_string_to_metric_families(text or ""):
                family = families.setdefault(told.name, Metric(told.name, told.documentation, told.type))
                family.samples += [
                    sample._replace(labels={_PROVIDER: provider, **sample.labels}) for sample in told.samples
                ]
        yield up
        yield from families.values()

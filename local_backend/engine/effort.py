"""What each sequence takes of the machine: floating-point operations, and joules by its share of every pass.

Operations are counted from the model's hyperparameters. A pass's energy is shared by its rows, since each
costs the same; what the counter moves by between passes belongs to the next one, and nobody is charged for a
machine that waits. Counters move in steps (NVML's every 20 to 100 ms), so that a sequence may end before its
last passes are counted: it is charged for them by the power of late, and the counter's next step is shared
less that. So what sequences are charged adds up to what the counter says.
"""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from local_backend.measure.gauge import ESTIMATE, Assumed, Gauge

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Effort:
    """Joules, where they are from (nvml, rapl, estimate), and floating-point operations."""

    joules: float = 0.0
    flops: int = 0
    source: str = ESTIMATE

    def __add__(self, other: "Effort") -> "Effort":
        source = self.source if self.source == other.source else ESTIMATE
        return Effort(self.joules + other.joules, self.flops + other.flops, source)


class EffortBook:
    """Used by the engine's thread alone. `joules` and `flops` are all that was charged for."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._watts = gauge.watts
        self._seconds: dict[int, float] = {}
        """Of passes whose energy isn't counted yet, by sequence."""
        self._window = 0.0
        self._advanced = 0.0
        self._joules: dict[int, float] = {}
        self._flops: Counter[int] = Counter()
        self.joules = 0.0
        self.flops = 0

    @property
    def source(self) -> str:
        """Where joules come from now."""
        return self._gauge.source

    def begin(self) -> None:
        """Passes are about to run after a pause, in which the counter told of those before it."""
        self._seconds.clear()
        self._window = self._advanced = 0.0
        try:
            self._gauge.begin()
        except Exception as error:  # noqa: BLE001 - as in `passed`
            self._give_up(error)

    def passed(self, rows: Iterable[int], flops: Iterable[int], seconds: float) -> None:
        """A pass took so long: the sequence of each of its rows, and each row's operations."""
        shares = Counter[int]()
        for sequence, operations in zip(rows, flops, strict=True):
            shares[sequence] += 1
            self._flops[sequence] += operations
        each = seconds / shares.total()
        for sequence, count in shares.items():
            self._seconds[sequence] = self._seconds.get(sequence, 0.0) + each * count
        self._window += seconds
        try:
            joules = self._gauge.take(seconds)
        except Exception as error:  # noqa: BLE001 - whatever a counter suffers, answers go on
            self._give_up(error)
            joules = self._gauge.take(seconds)
        if joules > 0 < self._window:
            self._share(joules)

    def close(self, sequence: int) -> Effort:
        """What a sequence took that has ended."""
        advance = self._watts * self._seconds.pop(sequence, 0.0)
        self._advanced += advance
        joules, flops = self._joules.pop(sequence, 0.0) + advance, self._flops.pop(sequence, 0)
        self.joules += joules
        self.flops += flops
        return Effort(joules, flops, self._gauge.source)

    def _share(self, joules: float) -> None:
        """Charge the passes since the counter's last step with what it moved by."""
        self._watts = joules / self._window
        left = joules - self._advanced
        self._advanced = max(0.0, -left)
        if left > 0:
            whole = sum(self._seconds.values())
            for sequence, seconds in self._seconds.items():
                self._joules[sequence] = self._joules.get(sequence, 0.0) + left * seconds / whole
        self._seconds.clear()
        self._window = 0.0

    def _give_up(self, error: Exception) -> None:
        log.warning("the energy counter is gone", extra={"facts": {"error": str(error)[:300]}})
        self._gauge = Assumed(self._gauge.watts)

"""Joules while a model runs: read from the hardware's counter, or assumed where none can be read."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from local_backend.clock import cpu_time
from local_backend.measure.energy import POWERCAP, Meter, find_meter

log = logging.getLogger(__name__)

CORE_WATTS = 10.0
GPU_WATTS = 500.0
"""What a core and a GPU are taken to draw while they compute, with their part of the machine."""

ESTIMATE = "estimate"
"""The source of what no counter measured."""


class Gauge(Protocol):
    """Where joules come from: `source` is nvml, rapl or estimate.

    `watts` is the device's power until the first reading, and without any.
    """

    source: str
    watts: float

    def begin(self) -> None:
        """The machine has waited: forget what it took meanwhile."""

    def take(self, seconds: float, /) -> float:
        """Joules since the last time, of which passes took so many seconds."""


@dataclass
class Cores:
    """No counter: so many watts of a core, for as long as cores work for this process.

    Its time on the cores tells more than the clock where others use them too. Of `processes` that hold the
    model together each is taken to work as much.
    """

    core_watts: float
    processes: int = 1
    source: str = ESTIMATE

    def __post_init__(self) -> None:
        self.watts = self.core_watts * self.processes * torch.get_num_threads()
        self._last = cpu_time()

    def begin(self) -> None:
        self._last = cpu_time()

    def take(self, _seconds: float, /) -> float:
        before, self._last = self._last, cpu_time()
        return (self._last - before) * self.core_watts * self.processes


@dataclass
class Assumed:
    """No counter: so many watts while a pass runs."""

    watts: float
    source: str = ESTIMATE

    def begin(self) -> None:
        """Nothing is assumed of a machine that waits."""

    def take(self, seconds: float, /) -> float:
        return self.watts * seconds


class Counted:
    """The counter that `meter` reads."""

    def __init__(self, meter: Meter, watts: float) -> None:
        self.source = meter.source.lower()
        self.watts = watts
        self._meter = meter
        self._last = meter.read()

    def begin(self) -> None:
        self._last = self._meter.read()

    def take(self, _seconds: float, /) -> float:
        before, self._last = self._last, self._meter.read()
        return self._meter.spent(before, self._last)


def find_gauge(device: torch.device, processes: int, watts: float | None, powercap: Path = POWERCAP) -> Gauge:
    """The counter of what the model runs on, in so many processes, else what follows from `watts`.

    They are those of a core, or of a GPU.
    """
    here = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    meter = (
        find_meter(device, powercap, devices=processes)
        if here == processes
        else "some of its processes are on other machines"
    )
    assumed: Gauge = (
        Assumed((watts or GPU_WATTS) * processes)
        if device.type == "cuda"
        else Cores(watts or CORE_WATTS, processes)
    )
    if isinstance(meter, Meter):
        log.info("energy is measured", extra={"facts": {"source": meter.source}})
        return Counted(meter, assumed.watts)
    log.info("energy is estimated", extra={"facts": {"watts": assumed.watts, "why": meter}})
    return assumed

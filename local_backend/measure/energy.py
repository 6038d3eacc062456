"""Joules from the hardware's own counters: NVML's for a GPU, RAPL's for a CPU, and else the reason why not.

RAPL counts in microjoules per package and starts again from zero at `max_energy_range_uj` (Linux,
Documentation/power/powercap).
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

_POWERCAP = Path("/sys/class/powercap")
_MICRO, _MILLI = 1e-6, 1e-3


@dataclass(frozen=True)
class Meter:
    """`read` gives joules since some moment; `source` names the counter. `wraps` is where it starts again."""

    source: str
    read: Callable[[], list[float]]
    wraps: tuple[float, ...]

    def spent(self, before: list[float], after: list[float]) -> float:
        """Joules between two readings, each counter at most once around."""
        parts = zip(before, after, self.wraps, strict=True)
        return sum(b - a if b >= a else b - a + wrap for a, b, wrap in parts)


def find_meter(device: torch.device, powercap: Path = _POWERCAP) -> Meter | str:
    """The meter for what runs on `device`, or why there is none."""
    return _nvml(device) if device.type == "cuda" else _rapl(powercap)


def _nvml(device: torch.device) -> Meter | str:
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except ImportError:
        return "install nvidia-ml-py to read the GPU's energy counter"
    # NVML's errors have no common base that exists without the package.
    except Exception as error:  # noqa: BLE001
        return f"NVML has no energy counter for this GPU: {error}"
    return Meter("NVML", lambda: [nvml.nvmlDeviceGetTotalEnergyConsumption(handle) * _MILLI], (float("inf"),))


def _rapl(powercap: Path) -> Meter | str:
    # Packages alone: cores and memory are parts of them.
    zones = sorted(powercap.glob("intel-rapl:[0-9]*"))
    zones = [zone for zone in zones if zone.name.count(":") == 1]
    if not zones:
        return f"{powercap} has no RAPL counters (virtual machines rarely do)"
    try:
        wraps = tuple(_joules(zone / "max_energy_range_uj") for zone in zones)
        for zone in zones:
            _joules(zone / "energy_uj")
    except (OSError, ValueError) as error:
        return f"RAPL's counters cannot be read ({error}); root can"
    return Meter("RAPL", lambda: [_joules(zone / "energy_uj") for zone in zones], wraps)


def _joules(path: Path) -> float:
    return int(path.read_text(encoding="ascii")) * _MICRO

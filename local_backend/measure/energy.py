"""Joules from the hardware's own counters: NVML's for a GPU, RAPL's for a CPU, and else the reason why not.

RAPL counts in microjoules per package and starts again from zero at `max_energy_range_uj` (Linux,
Documentation/power/powercap). AMD's counters have the same names.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

POWERCAP = Path("/sys/class/powercap")
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


def find_meter(device: torch.device, powercap: Path = POWERCAP, *, devices: int = 1) -> Meter | str:
    """The meter for what runs on `device` and as many of its kind after it, or why there is none."""
    return _nvml(device, devices) if device.type == "cuda" else _rapl(powercap)


def _nvml(device: torch.device, devices: int) -> Meter | str:
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        first = device.index or 0
        handles = [
            nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(index).uuid}")
            for index in range(first, first + devices)
        ]
        for handle in handles:
            nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except ImportError:
        return "install nvidia-ml-py to read the GPU's energy counter"
    # NVML's errors have no common base that exists without the package.
    except Exception as error:  # noqa: BLE001
        return f"NVML has no energy counter for this GPU: {error}"
    return Meter(
        "NVML",
        lambda: [nvml.nvmlDeviceGetTotalEnergyConsumption(handle) * _MILLI for handle in handles],
        (float("inf"),) * devices,
    )


def _rapl(powercap: Path) -> Meter | str:
    # Packages alone: cores and memory are parts of them, and psys has the packages in it.
    zones = sorted(powercap.glob("intel-rapl:[0-9]*"))
    zones = [zone for zone in zones if zone.name.count(":") == 1 and not _is_platform(zone)]
    if not zones:
        return f"{powercap} has no RAPL counters (virtual machines rarely do)"
    try:
        wraps = tuple(_joules(zone / "max_energy_range_uj") for zone in zones)
        for zone in zones:
            _joules(zone / "energy_uj")
    except (OSError, ValueError) as error:
        return f"RAPL's counters cannot be read ({error}); root can"
    return Meter("RAPL", lambda: [_joules(zone / "energy_uj") for zone in zones], wraps)


def _is_platform(zone: Path) -> bool:
    name = zone / "name"
    return name.exists() and name.read_text(encoding="ascii").strip() == "psys"


def _joules(path: Path) -> float:
    return int(path.read_text(encoding="ascii")) * _MICRO

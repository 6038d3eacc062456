"""What layers are given: time, chance, ears, and the way out."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from policies.ports import AlarmClock, Meter


@dataclass(frozen=True, slots=True)
class Parts:
    """The same for every layer of a worker. ``wall_time`` gives seconds since the epoch."""

    clock: AlarmClock
    wall_time: Callable[[], float]
    rng: random.Random
    meter: Meter
    transport: httpx.AsyncBaseTransport

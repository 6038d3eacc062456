"""When users come: a Poisson process, which is what many independent users look like together."""

from collections.abc import Iterator
from itertools import islice, takewhile
from random import Random


def poisson(rate: float, random: Random) -> Iterator[float]:
    """Times from 0 on, ``rate`` a second on average, without end: gaps are exponential."""
    at = 0.0
    while True:
        at += random.expovariate(rate)
        yield at


def within(times: Iterator[float], duration: float | None, requests: int | None) -> Iterator[float]:
    """The first ``requests`` of these times, as far as they are less than ``duration``."""
    bounded = times if duration is None else takewhile(lambda at: at < duration, times)
    return islice(bounded, requests)

"""How many may be open, and whether the advice when to come back is true."""

import heapq
import random
from statistics import mean

import pytest

from local_backend.engine.admission import Admission, QueueFull


def test_places_are_taken_all_or_none() -> None:
    admission = Admission(max_concurrency=2, max_queue=1)
    admission.enter(2, now=0.0)
    with pytest.raises(QueueFull):
        admission.enter(2, now=0.0)
    assert admission.open == 2
    admission.enter(1, now=0.0)
    admission.leave(now=1.0)
    assert admission.open == 2


def test_the_advice_follows_how_fast_places_are_left() -> None:
    admission = Admission(max_concurrency=2, max_queue=0)
    for start in range(20):
        admission.enter(2, now=start)
        admission.leave(now=start + 1.0)
        admission.leave(now=start + 1.0)
    admission.enter(2, now=30.0)
    with pytest.raises(QueueFull) as full:
        admission.enter(1, now=30.0)
    assert full.value.retry_after == pytest.approx(0.5, rel=0.2)
    assert admission.expected_wait() == full.value.retry_after
    with pytest.raises(QueueFull) as twice:
        admission.enter(2, now=30.0)
    assert twice.value.retry_after == pytest.approx(2 * full.value.retry_after)


@pytest.mark.parametrize("spread", [0.1, 1.0])
@pytest.mark.parametrize("seconds", [0.5, 20.0])
def test_retry_after_is_on_average_when_a_place_is_free(seconds: float, spread: float) -> None:
    """A full house of random durations; whoever is refused notes the advice and when a place really came."""
    rng = random.Random(3)
    admission = Admission(max_concurrency=4, max_queue=4)
    ends: list[float] = []
    waiting, now = 0, 0.0
    advised, true = [], []

    def start(moment: float) -> None:
        heapq.heappush(ends, moment + seconds * rng.lognormvariate(-(spread**2) / 2, spread))

    for _ in range(8):
        admission.enter(1, now)
        if len(ends) < 4:
            start(now)
        else:
            waiting += 1
    for turn in range(2000):
        with pytest.raises(QueueFull) as full:
            admission.enter(1, now)
        end = heapq.heappop(ends)
        if turn > 200:
            advised.append(full.value.retry_after)
            true.append(end - now)
        now = end
        admission.leave(now)
        start(now)
        admission.enter(1, now)
    assert mean(advised) == pytest.approx(mean(true), rel=0.15)

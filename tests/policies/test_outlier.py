import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.outlier import EjectionTime, OutlierDetector, OutlierOptions


@pytest.mark.parametrize(
    "wrong",
    [
        {"consecutive": 0},
        {"minimum": 0},
        {"ratio": 0},
        {"ratio": 1.1},
        {"window": 0},
        {"calm": 0},
        {"ejection": 301},
        {"ejection": 0},
        {"jitter": -0.1},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        OutlierOptions(**wrong)


def verdicts(outcomes, *, every=0.1, **options):
    """What is said ``every`` seconds at a failed opening "-", a broken stream "x", an answer "a", a good end
    "e", or both at once "+"."""
    detector = OutlierDetector(OutlierOptions(**options))
    said = []
    for number, outcome in enumerate(outcomes):
        now = number * every
        if outcome == "-":
            said.append(detector.failed(now, answered=False))
        elif outcome == "x":
            said.append(detector.failed(now, answered=True))
        else:
            said.append(detector.answered() if outcome == "a" else None)
            said.append(detector.succeeded(now) if outcome == "e" else None)
        if outcome == "+":
            detector.answered()
            detector.succeeded(now)
    return said


@pytest.mark.parametrize(
    ("outcomes", "why"),
    [
        ("-----", "5 failures in a row"),
        ("++++++++++-----", "5 failures in a row"),
        ("----+----", None),
        ("+-+-+-+-+-", "5 of 10 calls failed within 60 s"),
        ("+-+-+-+-", None),
        ("e-e-e-e-e-", "5 failures in a row"),
        ("axaxaxaxax", "5 failures in a row"),
        ("-x-x-x-x", None),
        ("-x-x-x-x-", "5 failures in a row"),
        ("++-++-++-++-++-++-", None),
    ],
)
def test_both_rules(outcomes, why):
    *before, last = verdicts(outcomes)
    assert last == why
    assert not any(before)


def test_old_failures_are_forgotten():
    assert not any(verdicts("-+-+" * 10, every=15))


def test_a_reset_forgets_all():
    detector = OutlierDetector(OutlierOptions())
    for _ in range(4):
        detector.failed(0, answered=False)
    detector.reset()
    assert detector.failed(0, answered=False) is None
    assert detector.totals(0) == (1, 1)


@given(st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=200))
def test_totals_count_at_least_the_last_55_seconds_and_at_most_60(steps):
    detector = OutlierDetector(OutlierOptions(consecutive=10**6, minimum=10**6))
    now, times = 0.0, []
    for step, ok in steps:
        now += step
        times.append((now, ok))
        detector.succeeded(now) if ok else detector.failed(now, answered=False)
    calls, bad = detector.totals(now)
    for index, total in ((0, calls), (1, bad)):
        chosen = [at for at, ok in times if index == 0 or not ok]
        assert sum(at > now - 55 for at in chosen) <= total <= sum(at > now - 60 for at in chosen)


def test_ejections_grow_to_the_longest():
    time = EjectionTime(OutlierOptions(jitter=0), random.Random(1))
    assert [time.next(0) for _ in range(3)] == [(1, 10), (2, 20), (3, 30)]
    for _ in range(50):
        last = time.next(0)
    assert last == (30, 300)


def test_jitter_only_adds():
    time = EjectionTime(OutlierOptions(ejection=10, longest=10), random.Random(1))
    seconds = [time.next(0)[1] for _ in range(200)]
    assert 10 <= min(seconds) < 10.2
    assert 11.8 < max(seconds) <= 12


def test_the_multiplier_falls_with_health_and_only_then():
    time = EjectionTime(OutlierOptions(jitter=0), random.Random(1))
    for _ in range(4):
        time.next(0)
    assert time.count(1000) == 4
    time.healthy(1000)
    assert [time.count(1000 + s) for s in (9, 10, 25)] == [4, 3, 2]
    time.left()
    assert time.count(5000) == 2
    time.healthy(5000)
    assert time.count(5019.9) == 1
    assert time.count(9999) == 0

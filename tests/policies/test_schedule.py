from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.schedule import CurrentTerms, Schedule, Terms, Window

NIGHT = Terms(weight=3, max_concurrency=50)
DAY = Terms(weight=1, max_concurrency=10)
BERLIN = ZoneInfo("Europe/Berlin")


def wall(*utc):
    return datetime(*utc, tzinfo=UTC).timestamp()


def schedule(start, end, zone="UTC", **window):
    return Schedule(
        ZoneInfo(zone), (Window(time.fromisoformat(start), time.fromisoformat(end), NIGHT, **window),), DAY
    )


@pytest.mark.parametrize(
    ("utc", "terms"),
    [
        ((2025, 3, 3, 16, 29, 59), DAY),
        ((2025, 3, 3, 16, 30), NIGHT),
        ((2025, 3, 3, 23, 59), NIGHT),
        ((2025, 3, 4, 0, 29, 59), NIGHT),
        ((2025, 3, 4, 0, 30), DAY),
    ],
)
def test_a_window_past_midnight(utc, terms):
    assert schedule("16:30", "00:30").at(wall(*utc)) == terms


def test_a_window_belongs_to_the_day_it_starts_on():
    friday = schedule("22:00", "06:00", days=frozenset({4}))
    assert friday.at(wall(2025, 3, 7, 23)) == NIGHT
    assert friday.at(wall(2025, 3, 8, 5)) == NIGHT  # Saturday morning
    assert friday.at(wall(2025, 3, 8, 23)) == DAY
    assert friday.at(wall(2025, 3, 7, 5)) == DAY  # Friday morning is Thursday's


def test_the_first_window_that_covers_the_time_wins():
    both = Schedule(
        ZoneInfo("UTC"), (Window(time(1), time(2), NIGHT), Window(time(0), time(0), Terms(weight=9)))
    )
    assert both.at(wall(2025, 3, 3, 1, 30)) == NIGHT
    assert both.at(wall(2025, 3, 3, 2)) == Terms(weight=9)


def minutes_inside(plan, start, hours):
    first = wall(*start)
    return sum(plan.at(first + 60 * minute) == NIGHT for minute in range(60 * hours))


@pytest.mark.parametrize(
    ("start", "minutes"),
    [
        ((2025, 3, 28, 12), 60),  # an ordinary night
        ((2025, 3, 29, 12), 0),  # 2025-03-30 has no hour from 2 to 3 in Berlin
        ((2025, 10, 25, 12), 120),  # 2025-10-26 has it twice
    ],
)
def test_the_hour_that_is_skipped_or_repeated(start, minutes):
    assert minutes_inside(schedule("02:00", "03:00", "Europe/Berlin"), start, 24) == minutes


def test_local_time_decides_in_summer_and_in_winter():
    plan = schedule("20:00", "08:00", "Europe/Berlin")
    assert plan.at(wall(2025, 1, 15, 18, 59)) == DAY
    assert plan.at(wall(2025, 1, 15, 19)) == NIGHT
    assert plan.at(wall(2025, 7, 15, 17, 59)) == DAY
    assert plan.at(wall(2025, 7, 15, 18)) == NIGHT


@pytest.mark.parametrize("zone", ["Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns", "UTC"])
@given(start=st.times(), end=st.times(), second=st.integers(1_700_000_000, 1_900_000_000))
def test_terms_change_only_on_whole_minutes(zone, start, end, second):
    edges = [edge.replace(second=0, microsecond=0) for edge in (start, end)]
    plan = Schedule(ZoneInfo(zone), (Window(*edges, NIGHT),), DAY)
    minute = second // 60 * 60
    assert plan.at(second) == plan.at(minute) == plan.at(minute + 59.999)


def test_the_terms_now_follow_the_wall_clock_both_ways():
    moment = [wall(2025, 3, 3, 16, 29, 59)]
    terms = CurrentTerms(schedule("16:30", "00:30"), wall=lambda: moment[0])
    assert (terms.weight(), terms.max_concurrency()) == (1, 10)
    moment[0] += 1
    assert (terms.weight(), terms.max_concurrency()) == (3, 50)
    moment[0] -= timedelta(hours=1).total_seconds()
    assert terms.now() == DAY


def test_the_terms_are_worked_out_once_a_minute(monkeypatch):
    asked = []
    monkeypatch.setattr(Schedule, "at", lambda _, wall: asked.append(wall) or DAY)
    moment = [wall(2025, 3, 3)]
    terms = CurrentTerms(schedule("16:30", "00:30"), wall=lambda: moment[0])
    for _ in range(180):
        terms.now()
        moment[0] += 1
    assert len(asked) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Window(time(1, 0, 30), time(2), DAY),
        lambda: Window(time(1), time(2, tzinfo=UTC), DAY),
        lambda: Window(time(1), time(2), DAY, days=frozenset()),
        lambda: Window(time(1), time(2), DAY, days=frozenset({7})),
        lambda: Terms(weight=0),
        lambda: Terms(max_concurrency=-1),
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=r"schedule|must"):
        wrong()

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dashboard.views import GatewayView, SpendView, TrafficView
from gateway.top.frame import sparkline
from gateway.top.pace import WINDOW, Pace


def view(at, tokens):
    spent = SpendView(
        model="m",
        requests=1,
        cache_hits=0,
        input=tokens or 0,
        output=0,
        cost=0,
        unpriced=0,
        energy=0,
        energy_measured=0,
    )
    return GatewayView(
        at=datetime.fromtimestamp(at, UTC),
        workers=1,
        of=1,
        upstreams=[],
        tiers=[],
        traffic=TrafficView(seconds=5, until=at, answered=[], failed=[], refused=[]),
        cache=None,
        today=None if tokens is None else [spent],
        requests=[],
    )


def seen(*looks):
    pace = Pace()
    for at, tokens in looks:
        pace.see(view(at, tokens))
    return pace.tokens_per_second


@given(st.integers(0, 1000), st.integers(2, 300))
def test_a_steady_flow_has_its_rate_whatever_the_window(rate, looks):
    assert seen(*((at, at * rate) for at in range(looks))) == pytest.approx(rate)


def test_only_the_window_counts():
    assert seen((0, 0), (1, 1000), (WINDOW + 2, 1060), (WINDOW + 12, 1160)) == pytest.approx(10.0)


@pytest.mark.parametrize(
    "looks", [[], [(0, 5)], [(0, 5), (1, None)], [(0, 500), (1, 3)], [(0, 5), (1, None), (2, 9)]]
)
def test_a_new_day_or_a_lost_ledger_begins_anew(looks):
    assert seen(*looks) is None


@given(st.lists(st.none() | st.floats(min_value=0, max_value=1e6), max_size=60))
def test_a_sparkline_has_a_bar_for_each_of_the_newest(values):
    newest = values[-20:]
    bars = sparkline(values)
    if not any(newest):
        assert bars == ""
        return
    assert len(bars) == len(newest)
    assert [bar == " " for bar in bars] == [value is None for value in newest]
    assert bars[newest.index(max(value for value in newest if value is not None))] == "█"

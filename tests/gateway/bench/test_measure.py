from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bench.answer import MALFORMED, TRUNCATED
from gateway.bench.measure import PERCENTILES, Distribution, percentile, summarize
from gateway.bench.sample import Sample
from gateway.bench.slo import Slo

times = st.floats(min_value=0, max_value=1e6)
bounds = st.none() | st.floats(min_value=0.001, max_value=100)
slos = st.builds(Slo, ttft=bounds, itl=bounds, total=bounds)


@st.composite
def samples(draw):
    due, late, first, streamed, ended = (draw(st.floats(min_value=0, max_value=100)) for _ in range(5))
    tokens = draw(st.integers(min_value=0, max_value=50))
    sent = due + late
    fault = draw(st.sampled_from(["", "", TRUNCATED, MALFORMED, "HTTP 429"]))
    began = tokens > 0
    return Sample(
        due=due,
        sent=sent,
        first=sent + first if began else None,
        last=sent + first + streamed if began else None,
        longest_gap=streamed if tokens > 1 else None,
        ended=sent + first + streamed + ended,
        output_tokens=tokens,
        status=429 if fault.startswith("HTTP") else 200,
        fault=fault,
    )


@given(st.lists(times, min_size=1), st.integers(min_value=1, max_value=100))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values, percent):
    ordered = sorted(values)
    found = percentile(ordered, percent)
    share = Fraction(percent, 100)
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)


@given(st.lists(times))
def test_a_distribution_is_in_order(values):
    found = Distribution.of(values)
    if not values:
        assert found is None
        return
    ladder = [found.least, *(found.percentiles[each] for each in PERCENTILES), found.most]
    assert ladder == sorted(ladder)
    assert found.count == len(values)
    assert found.least * (1 - 1e-9) <= found.mean <= found.most * (1 + 1e-9)


@given(st.lists(samples()), st.floats(min_value=0.1, max_value=100), st.none() | slos)
def test_every_request_is_either_answered_or_an_error(seen, seconds, slo):
    summary = summarize(seen, seconds, slo)
    assert summary.sent == len(seen) == summary.answered + sum(summary.errors.values())
    assert summary.truncated <= sum(summary.errors.values())
    assert summary.total is None or summary.total.count == summary.answered
    if slo is None:
        assert summary.kept_slo is None
    else:
        assert summary.kept_slo <= summary.answered


@given(st.lists(samples()), slos)
def test_a_looser_promise_is_kept_as_often_at_least(seen, slo):
    kept = summarize(seen, 1.0, slo).kept_slo
    assert summarize(seen, 1.0, replace(slo, itl=None)).kept_slo >= kept
    assert summarize(seen, 1.0, Slo()).kept_slo >= kept


@given(samples(), st.floats(min_value=0, max_value=50))
def test_a_generator_that_is_late_makes_no_wait_shorter(sample, late):
    later = replace(sample, due=max(0.0, sample.due - late))
    assert later.total >= sample.total
    assert sample.ttft is None or later.ttft >= sample.ttft


def test_itl_is_the_mean_time_of_a_token_after_the_first():
    sample = Sample(due=0, sent=1, first=2.0, last=4.0, ended=5, output_tokens=5)
    assert (sample.ttft, sample.itl, sample.total, sample.late) == (2.0, 0.5, 5, 1)
    assert replace(sample, output_tokens=1).itl is None


@pytest.mark.parametrize(
    ("text", "slo"),
    [
        ("ttft=1s,itl=100ms", Slo(1.0, 0.1)),
        ("total=2m", Slo(total=120.0)),
        (" ttft=1.5s , total=10s", Slo(1.5, None, 10.0)),
    ],
)
def test_promises_are_read(text, slo):
    assert Slo.parse(text) == slo
    assert Slo.parse(str(slo).replace(" ≤ ", "=").replace(" ms", "ms").replace(" s", "s")) == slo


@pytest.mark.parametrize("text", ["", "ttft", "ttft=1", "tft=1s", "ttft=1s,,itl=1s", "itl=-1s"])
def test_promises_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match=r"ttft|itl"):
        Slo.parse(text)

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.settings.env import BadReference, expand
from gateway.settings.units import duration, percent, period, size, tokens

WHOLE = st.integers(min_value=0, max_value=10**9)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30s", 30), ("10m", 600), ("1h", 3600), ("1.5s", 1.5), ("0s", 0), ("0.1ms", 0.0001)],
)
def test_durations(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [("0B", 0), ("512B", 512), ("1kB", 1000), ("64KiB", 65536), ("32MiB", 33554432), ("1.5KiB", 1536)],
)
def test_sizes(text, count):
    assert size(text) == count


@pytest.mark.parametrize(("text", "share"), [("10%", 0.1), ("0%", 0), ("100%", 1), ("2.5%", 0.025)])
def test_percentages(text, share):
    assert percent(text) == share


@pytest.mark.parametrize(
    "text", ["", "30", "s", "-1s", "1 s", "1S", "1d", "1e3s", "nans", "1m30s", "٣s", 30, None]
)
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="must be a duration with its unit"):
        duration(text)


@pytest.mark.parametrize(("text", "seconds"), [("12h", 43200), ("90d", 7776000), ("0.5d", 43200)])
def test_periods(text, seconds):
    assert period(text) == seconds


@pytest.mark.parametrize("text", ["90", "90D", "1w", "30s", 90, None])
def test_what_is_no_period(text):
    with pytest.raises(ValueError, match="must be a period with its unit"):
        period(text)


@pytest.mark.parametrize("text", ["32", "32mb", "MiB", "-1B", "1 B", 32])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="must be a size with its unit"):
        size(text)


def test_part_of_a_byte():
    with pytest.raises(ValueError, match="whole number of bytes"):
        size("0.3B")


@pytest.mark.parametrize(
    ("text", "said"), [("101%", "at most 100%"), ("10", "a percentage"), (0.1, "a percentage")]
)
def test_what_is_no_percentage(text, said):
    with pytest.raises(ValueError, match=said):
        percent(text)


@given(WHOLE)
def test_units_agree_with_each_other(count):
    assert duration(f"{count}s") == duration(f"{count * 1000}ms") == count
    assert duration(f"{count}h") == duration(f"{count * 60}m")
    assert size(f"{count}MiB") == size(f"{count * 1024}KiB") == count * 2**20


@given(st.integers(min_value=0, max_value=100))
def test_a_percentage_is_the_nearest_fraction(count):
    assert percent(f"{count}%") == count / 100


@given(st.text(alphabet="0123456789.smh% "))
def test_any_text_is_a_duration_or_a_plain_complaint(text):
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?(ms|s|m|h)", text):
        assert duration(text) >= 0
    else:
        with pytest.raises(ValueError, match="must be a duration"):
            duration(text)


@given(st.text())
def test_text_with_doubled_dollars_is_itself(text):
    assert expand(text.replace("$", "$$"), {}) == text


@given(st.text(), st.text(alphabet=st.characters(exclude_characters="}"), min_size=1))
def test_a_variable_wins_over_its_default_unless_empty(value, default):
    assert expand("<${V:-" + default + "}>", {"V": value}) == f"<{value or default}>"
    assert expand("<${V}>", {"V": value}) == f"<{value}>"


@pytest.mark.parametrize("text", ["${}", "${1A}", "${A B}", "${A", "${A:+x}"])
def test_what_is_no_reference(text):
    with pytest.raises(BadReference, match=r"write \$\{NAME\}"):
        expand(text, {"A": "x"})


@pytest.mark.parametrize(
    ("text", "count"), [("128k", 128_000), ("1M", 10**6), ("1.5k", 1500), (8192, 8192), (1, 1)]
)
def test_tokens(text, count):
    assert tokens(text) == count


@pytest.mark.parametrize("text", ["8192", "128K", "128kB", "1.0005k", "0k", 0, -1, True, 1.5, None])
def test_what_is_no_number_of_tokens(text):
    with pytest.raises(ValueError, match="must be a number of tokens, such as 131072, 128k or 1M"):
        tokens(text)

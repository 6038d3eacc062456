import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.providers.headers import headroom, retry_after
from policies.service import Headroom

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None),
        ([(b"retry-after", b"7")], 7),
        ([(b"Retry-After", b"0")], 0),
        ([(b"retry-after", b"1.5")], 1.5),
        ([(b"retry-after", b"Tue, 14 Nov 2023 22:13:50 GMT")], 30),
        ([(b"retry-after", b"Tue, 14 Nov 2023 22:13:00 GMT")], 0),
        ([(b"retry-after-ms", b"250")], 0.25),
        ([(b"retry-after", b"9"), (b"retry-after-ms", b"250")], 0.25),
        ([(b"retry-after-ms", b"soon"), (b"retry-after", b"9")], 9),
        ([(b"retry-after", b"soon")], None),
        ([(b"retry-after", b"1e308")], 366 * 86400),
        ([(b"retry-after", b"-3")], None),
        ([(b"retry-after", b"inf")], None),
        ([(b"retry-after", b"nan")], None),
        ([(b"x-other", b"7")], None),
    ],
)
def test_retry_after(headers, seconds):
    assert retry_after(headers, NOW) == seconds


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_whatever_an_upstream_says_of_waiting_is_read_or_ignored(value):
    found = retry_after([(b"retry-after", value), (b"retry-after-ms", value)], NOW)
    assert found is None or found >= 0


@pytest.mark.parametrize("date", [b"Mon, 01 Jan 0001 00:00:00 -0000", b"Fri, 31 Dec 9999 23:59:59 GMT"])
def test_dates_at_the_ends_of_time_are_no_reason_to_fail(date):
    retry_after([(b"retry-after", date)], NOW)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"12ms", 0.012),
        (b"1s", 1),
        (b"6m0s", 360),
        (b"1h2m3.5s", 3723.5),
        (b"1d", 86400),
        (b"30", 30),
        (b"", None),
        (b"soon", None),
    ],
)
def test_resets_are_durations(value, seconds):
    found = headroom([(b"X-RateLimit-Reset-Requests", value)])
    assert found.reset_requests == pytest.approx(seconds)


def test_headroom_is_read_from_openais_headers():
    headers = [
        (b"x-ratelimit-limit-requests", b"5000"),
        (b"x-ratelimit-remaining-requests", b"4999"),
        (b"x-ratelimit-reset-requests", b"12ms"),
        (b"X-RateLimit-Remaining-Tokens", b"159976"),
        (b"x-ratelimit-reset-tokens", b"9s"),
        (b"content-type", b"application/json"),
    ]
    assert headroom(headers) == Headroom(4999, 0.012, 159976, 9)


def test_an_upstream_that_says_nothing_has_no_headroom():
    assert headroom([(b"content-type", b"application/json")]) is None
    assert headroom([(b"x-ratelimit-remaining-requests", b"plenty")]) == Headroom()


@given(st.binary(max_size=30))
def test_whatever_an_upstream_says_of_its_limits_is_read_or_ignored(value):
    names = [b"remaining-requests", b"reset-requests", b"remaining-tokens", b"reset-tokens"]
    assert headroom([(b"x-ratelimit-" + name, value) for name in names]) is not None

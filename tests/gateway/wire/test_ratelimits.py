import pytest

from gateway.wire.ratelimits import duration, headers
from policies.service import Allowance


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, b"0s"),
        (0.0001, b"1ms"),
        (0.12, b"120ms"),
        (0.9999, b"1s"),
        (1, b"1s"),
        (8.64, b"8.64s"),
        (59.9995, b"1m0s"),
        (86.4, b"1m26.4s"),
        (360, b"6m0s"),
        (50600.05, b"14h3m20.05s"),
        (31 * 86400, b"744h0m0s"),
    ],
)
def test_durations_are_written_as_openai_does(seconds, written):
    assert duration(seconds) == written


def test_the_binding_limit_of_each_kind_is_told():
    left = [
        Allowance("tight", "input_tokens", 20000, 1199.7, 56.4),
        Allowance("slots", "concurrency", 2, 1, 0),
        Allowance("day", "requests", 50, 12, 3600),
        Allowance("money", "spend", 5, 4, 3600),
        Allowance("minute", "requests", 10, 9, 6),
        Allowance("wide", "tokens", 10**6, 10**6, 0),
    ]
    assert headers(left) == [
        (b"x-ratelimit-limit-tokens", b"20000"),
        (b"x-ratelimit-remaining-tokens", b"1199"),
        (b"x-ratelimit-reset-tokens", b"56.4s"),
        (b"x-ratelimit-limit-requests", b"50"),
        (b"x-ratelimit-remaining-requests", b"12"),
        (b"x-ratelimit-reset-requests", b"1h0m0s"),
    ]
    assert headers(()) == []

"""The client-side throttle alone, on an upstream that refuses nine attempts in ten for five minutes."""

from random import Random

from policies.throttle import AcceptRatio, ThrottleOptions
from tests.simulation.limited_upstream import tell


def demand(ratio, random, rate=10.0, seconds=900.0):
    """Poisson demand: (time, sent, accepted) of each request; capacity is 1 of 10 from 300 s to 600 s."""
    now, seen = 0.0, []
    while (now := now + random.expovariate(rate)) < seconds:
        if ratio is not None and ratio.refuses(now):
            seen.append((now, False, False))
            continue
        accepted = not 300 <= now < 600 or random.random() < 0.1
        if ratio is not None:
            ratio.record(now, now, accepted)
        seen.append((now, True, accepted))
    return seen


def share_sent(seen, start, end):
    part = [sent for at, sent, _ in seen if start <= at < end]
    return sum(part) / len(part)


def test_an_upstream_that_refuses_most_is_spared_and_returned_to():
    ratio = AcceptRatio(ThrottleOptions(), random=Random(2))
    seen = demand(ratio, Random(1))
    during, after = share_sent(seen, 450, 600), share_sent(seen, 720, 900)
    back = next(at for at in range(600, 900) if share_sent(seen, at, at + 10) > 0.95)
    tell(f"throttle: sent {during:.2f} in the overload, {after:.2f} after it; all again in {back - 600} s")
    assert during <= 0.60
    assert after >= 0.99
    assert share_sent(seen, 0, 300) == 1

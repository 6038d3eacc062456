"""Adaptive concurrency against a hidden limit that falls from 40 to 12 and rises again, with demand
at twice what it can serve.

Figures are printed: pytest -s. docs/plots/adaptive_concurrency.py draws them.
"""

from random import Random

import pytest

from policies.concurrency import AdaptiveOptions, ConcurrencyLimit
from policies.errors import UpstreamThrottled
from policies.service import Headroom
from tests.simulation.limited_upstream import MEAN_DURATION, Capacity, LimitedUpstream, overload, tell
from tests.simulation.other_limits import Aimd, Gradient2, Unlimited

STEPS = Capacity((0, 40), (300, 12), (600, 40))
RATE = 2 * 40 / MEAN_DURATION
DEFAULT = AdaptiveOptions()
SEEDS = (1, 2, 3)


def adaptive(seed=1, options=DEFAULT):
    return ConcurrencyLimit(options, random=Random(seed))


def run(limits, seed=1, capacity=STEPS, rate=RATE, **kind):
    upstream = LimitedUpstream(capacity, Random(seed), **kind)
    overload(upstream, limits, rate=rate)
    return upstream


def figures(name, upstreams):
    used = sum(up.used for up in upstreams) / sum(up.offered for up in upstreams)
    refused = sum(up.refused for up in upstreams) / sum(up.attempts for up in upstreams)
    p95 = max(up.ttft(0.95) for up in upstreams)
    tell(f"{name:34} utilisation {used:.3f}  refused {refused:.3f}  TTFT p95 {p95:6.2f} s")
    return used, refused, p95


def test_a_hidden_moving_limit_is_found_and_followed():
    used, refused, _ = figures("adaptive", [run([adaptive(seed)], seed) for seed in SEEDS])
    assert used >= 0.90
    assert refused <= 0.03


@pytest.mark.parametrize(
    ("name", "limit", "refused_above"),
    [("no limit", Unlimited, 0.5), ("AIMD", Aimd, 0.06), ("Gradient2 on total latency", Gradient2, 0.06)],
)
def test_others_refuse_more_or_use_less(name, limit, refused_above):
    limits = [limit() if limit is Unlimited else limit(DEFAULT)]
    _, refused, _ = figures(name, [run(limits)])
    assert refused > refused_above


def test_an_upstream_that_only_queues_is_kept_responsive():
    used, _, p95 = figures("adaptive, queueing", [run([adaptive(seed)], seed, queues=True) for seed in SEEDS])
    assert used >= 0.90
    assert p95 <= 3.0


def test_an_upstream_that_only_queues_without_a_limit():
    _, _, p95 = figures("no limit, queueing", [run([None], queues=True)])
    assert p95 > 60


@pytest.mark.parametrize(("gateways", "most"), [(2, 0.03), (4, 0.04)])
def test_gateways_that_know_nothing_of_each_other_share_a_limit(gateways, most):
    limits = [adaptive(seed) for seed in range(gateways)]
    used, refused, _ = figures(f"{gateways} gateways", [run(limits)])
    assert used >= 0.90
    assert refused <= most


@pytest.mark.parametrize("slots", [1, 2, 5, 100])
def test_small_and_large_limits(slots):
    upstream = run([adaptive()], capacity=Capacity((0, slots)), rate=2 * slots / MEAN_DURATION)
    used, refused, _ = figures(f"{slots} slots", [upstream])
    assert used >= 0.90
    assert upstream.refused <= 4 or refused <= 0.03


@pytest.mark.parametrize(("retry_after", "least"), [(1, 0.90), (10, 0.80), (30, 0.75)])
def test_a_long_retry_after_is_obeyed_and_rarely_provoked(retry_after, least):
    upstream = run([adaptive()], capacity=Capacity((0, 40)), retry_after=retry_after)
    used, refused, _ = figures(f"Retry-After {retry_after} s", [upstream])
    assert used >= least
    assert refused <= 0.03


def test_a_total_outage_costs_few_attempts_and_its_end_is_no_stampede():
    upstream = run([adaptive()], capacity=Capacity((0, 40), (300, 0), (360, 40)))
    figures("outage of 60 s", [upstream])
    refusals = [at for at, _ in upstream.trace]
    during = [at for at in refusals if 300 <= at < 360]
    after = [at for at in refusals if 360 <= at < 390]
    tell(f"{'':34} attempts refused in the outage {len(during)}, in the 30 s after it {len(after)}")
    assert len(during) <= 25
    assert len(after) <= 3
    assert upstream.utilisation >= 0.90


class RequestsPerMinute:
    """A limit on requests, refilled continuously or at once at the end of each minute."""

    def __init__(self, size, continuous):
        self.size, self.continuous = size, continuous
        self.left, self.at = float(size), 0.0

    def take(self, now):
        if self.continuous:
            self.left = min(self.size, self.left + (now - self.at) * self.size / 60)
        elif now // 60 > self.at // 60:
            self.left = self.size
        self.at = now
        if self.left < 1:
            return None
        self.left -= 1
        full_in = (self.size - self.left) * 60 / self.size if self.continuous else 60 - now % 60
        return Headroom(remaining_requests=int(self.left), reset_requests=full_in)


@pytest.mark.parametrize("continuous", [True, False])
def test_dispatch_by_what_is_left_uses_a_request_limit_without_a_refusal(continuous):
    account, limit = RequestsPerMinute(60, continuous), adaptive()
    now, sent, refused, answers = 0.0, 0, 0, []
    while now < 1800:  # demand without end, answers after a second
        while answers and answers[0][0] <= now:
            _, sent_at, headroom = answers.pop(0)
            if headroom is None:
                limit.throttled(now, sent_at, UpstreamThrottled("too many requests", status=429))
            else:
                limit.answered(now, sent_at, None, headroom)
            limit.ended(now, sent_at, headroom is not None, tokens=0)
        if limit.available(now):
            limit.sent(now)
            sent += 1
            headroom = account.take(now)
            if headroom is None:
                refused += 1
            answers.append((now + 1.0, now, headroom))
        else:
            now += 0.05
    share = (sent - refused) / (60 * 30)
    kind = "refilled continuously" if continuous else "reset each minute"
    tell(f"60 requests a minute, {kind}: used {share:.3f}, refused {refused / sent:.3f}")
    assert share >= 0.90
    assert refused / sent <= 0.03

"""Five equal upstreams, one of which becomes eight times slower; and what affinity does for caches."""
# ruff: noqa: T201 - prints its figures

import random
import statistics

import pytest

from policies.affinity import Affinity
from policies.member import Member
from policies.pick import Latency
from tests.kit.upstream import make_call
from tests.kit.virtual_time import run_virtual
from tests.simulation.upstream_pool import Pool, SlottedUpstream, quantile

SLOW_FROM, SLOW_UNTIL, RATE = 100.0, 200.0, 5.5
SEEDS = (1, 2, 3)


def one_of_five_slow(strategy, seed):
    """Outcomes of the calls that came from 5 s after the slowdown until its end."""

    async def main():
        rng = random.Random(seed)
        upstreams = [SlottedUpstream(f"up{i}", rng) for i in range(5)]
        upstreams[0].slow = lambda t: 8.0 if SLOW_FROM <= t < SLOW_UNTIL else 1.0
        pool = Pool(upstreams, strategy=strategy, guarded=False, seed=seed)
        return await pool.offer(RATE, SLOW_UNTIL)

    return [outcome for outcome in run_virtual(main()) if outcome.arrived >= SLOW_FROM + 5]


def figures(strategy):
    """TTFT's median and 99th percentile and the share that went to the slow one, means over the seeds."""
    rows = []
    for seed in SEEDS:
        outcomes = one_of_five_slow(strategy, seed)
        times = [outcome.first_token for outcome in outcomes]
        to_slow = sum(outcome.attempts == ("up0",) for outcome in outcomes)
        rows.append((quantile(times, 0.5), quantile(times, 0.99), to_slow / len(outcomes)))
    return [statistics.mean(column) for column in zip(*rows, strict=True)]


@pytest.fixture(scope="module")
def round_robin():
    return figures("weighted")  # with equal weights it is round robin


def test_latency_keeps_away_from_the_slow_one(round_robin):
    least_busy, latency = figures("least-busy"), figures("latency")
    for name, (p50, p99, share) in (
        ("round robin", round_robin),
        ("least-busy", least_busy),
        ("latency", latency),
    ):
        print(f"{name:12} TTFT p50 {p50:6.2f} s  p99 {p99:6.2f} s  share to the slow one {share:.1%}")
    assert latency[1] <= 0.10 * round_robin[1]
    assert latency[2] <= 0.05


def cache_hits(strategy, *, conversations=400, turns=8):
    """Share of later turns that meet the upstream with their conversation's prefix, turns interleaved."""
    rng = random.Random(4)
    group = [Member(f"up{i}", None) for i in range(5)]
    for member in group:
        member.latency.observe(0, 0.6)
    home, hits, order = {}, 0, [c for c in range(conversations) for _ in range(turns)]
    rng.shuffle(order)
    under_way = []
    for c in order:
        call = make_call(body={"messages": [{"role": "user", "content": f"conversation {c}"}]})
        member = strategy.choose(group, call, 0)
        hits += home.get(c) is member
        home[c] = member
        member.inflight += 1
        under_way.append(member)
        if len(under_way) > 50:
            under_way.pop(0).inflight -= 1
    return hits / (len(order) - conversations)


def test_affinity_meets_the_prefix_again():
    chance, affine = cache_hits(Latency(random.Random(1))), cache_hits(Affinity(1.5))
    print(f"prefix met again: latency {chance:.1%}, affinity {affine:.1%}")
    assert affine >= 0.9

"""What retries cost an upstream in trouble, and what clients notice. docs/plots/retry.py draws it."""
# ruff: noqa: T201 - prints its figures

import statistics

from policies.budget import BudgetOptions, RetryBudget
from tests.simulation import retry_traffic as traffic


def test_full_jitter_takes_far_fewer_calls_than_none():
    plain, plain_done = traffic.contention(jitter=False)
    runs = [traffic.contention(jitter=True, seed=seed) for seed in range(1, 6)]
    calls = statistics.mean(len(sent) for sent, _ in runs)
    done = statistics.mean(end for _, end in runs)
    print(
        f"\n100 clients: {len(plain)} calls and {plain_done:.0f} s without jitter, "
        f"{calls:.0f} calls ({calls / len(plain):.0%}) and {done:.0f} s with full jitter"
    )
    assert calls <= 0.6 * len(plain)


def test_with_long_calls_the_slots_decide_and_jitter_still_saves_time():
    plain, plain_done = traffic.contention(jitter=False, slots=10, busy=2)
    jittered, done = traffic.contention(jitter=True, slots=10, busy=2)
    print(
        f"\n100 clients, calls of 2 s at 10 slots: {len(plain)} calls and {plain_done:.0f} s without jitter, "
        f"{len(jittered)} calls ({len(jittered) / len(plain):.0%}) and {done:.0f} s with full jitter"
    )
    assert len(jittered) < len(plain)
    assert done < 0.5 * plain_done


def test_a_total_outage_is_not_amplified():
    without = traffic.outage(traffic.UNLIMITED, out=30)
    within = traffic.outage(BudgetOptions())
    print(
        f"\noutage of 60 s at 50 calls/s: {without['amplification']:.2f} attempts a call without a budget, "
        f"{within['amplification']:.2f} with it; failed afterwards {within['failed_afterwards']:.2%}"
    )
    assert without["amplification"] >= 2.8
    assert within["amplification"] <= 1.15
    assert within["failed_afterwards"] == 0


def test_a_dead_one_of_three_costs_no_answers():
    strict = traffic.one_of_three_dead(traffic.StrictBudget(BudgetOptions()))
    ours = traffic.one_of_three_dead(RetryBudget(BudgetOptions()))
    print(
        f"\none of three dead and not ejected: {strict:.1%} answered on a strict budget, {ours:.2%} on ours"
    )
    assert strict < 0.9
    assert ours >= 0.999

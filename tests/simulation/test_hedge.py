"""What a hedge takes off the tail and what it costs. docs/plots/hedge.py draws it."""
# ruff: noqa: T201 - prints its figures

from tests.simulation.retry_traffic import quantile, slow_tail


def test_a_slow_tail_is_cut_for_little_extra_work():
    plain, one = slow_tail(hedged=False)
    hedged, attempts = slow_tail(hedged=True)
    before, after = quantile(plain, 0.99), quantile(hedged, 0.99)
    print(
        f"\n3% are 15 times as slow: p50 {quantile(plain, 0.5):.2f} > {quantile(hedged, 0.5):.2f} s, "
        f"p99 {before:.2f} > {after:.2f} s ({1 - after / before:.0%} less), "
        f"{attempts / one - 1:.1%} extra calls"
    )
    assert one == 1
    assert after <= 0.3 * before
    assert attempts <= 1.06

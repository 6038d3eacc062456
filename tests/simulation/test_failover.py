"""What clients notice when upstreams die before a first event. docs/plots/failover.py draws it."""
# ruff: noqa: T201 - prints its figures

from tests.simulation.retry_traffic import deaths_along_a_route


def test_upstreams_killed_before_the_first_event_are_not_noticed():
    deaths = deaths_along_a_route()
    counts = {name: len(times) for name, times in deaths.answered.items()}
    print(
        f"\nkilled before the first event: answers {counts}, {len(deaths.errors)} errors, "
        f"{deaths.wrong} with a lost or a repeated token"
    )
    assert sum(counts.values()) > 900
    assert all(counts.values())
    assert not deaths.errors
    assert deaths.wrong == 0

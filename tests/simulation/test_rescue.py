"""How streams that break in the middle end. docs/plots/rescue.py draws it."""
# ruff: noqa: T201 - prints its figures

import pytest

from tests.simulation.broken_streams import broken_streams


@pytest.mark.parametrize(
    ("mode", "least"), [("off", 0.7), ("continue", 0.97), ("restart", 0.97), ("sampled", 0.7)]
)
def test_a_broken_stream_ends_whole_or_with_an_error(mode, least):
    ends, opened = broken_streams(mode)
    print(
        f"\n20% of streams break, rescue {mode}: {ends['whole']:.1%} whole, {ends['error']:.1%} errors, "
        f"{ends['wrong']:.1%} wrong; {opened:.2f} replies a call"
    )
    assert ends["wrong"] == 0
    assert ends["whole"] >= least

"""Tokens a second, from sums that the gateway reads from its ledger every few seconds."""

from collections import deque

from gateway.dashboard.views import GatewayView

WINDOW = 60.0
"""Seconds that a rate is taken over, at most."""


class Pace:
    """How fast the tokens of today grow."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def see(self, view: GatewayView) -> None:
        """Take what the gateway tells now. A new day, or a ledger that is away, begins anew."""
        if view.today is None:
            self._seen.clear()
            return
        at, tokens = view.at.timestamp(), sum(spend.input + spend.output for spend in view.today)
        if self._seen and tokens < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((at, tokens))
        while at - self._seen[0][0] > WINDOW:
            self._seen.popleft()

    @property
    def tokens_per_second(self) -> float | None:
        """In and out together; None until two looks are some seconds apart."""
        if len(self._seen) < 2:  # noqa: PLR2004 - a rate needs two
            return None
        (since, before), (until, after) = self._seen[0], self._seen[-1]
        return (after - before) / (until - since) if until > since else None

"""What happened to one request."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """Times are seconds of one clock. ``due`` is when the user came, ``sent`` when the request left.

    Waits count from ``due``: a generator that is late, or that waits for an answer before it sends the next
    request, would otherwise leave out the very requests that a slow server made wait. Gil Tene named that
    coordinated omission ("How NOT to Measure Latency", 2013).
    """

    due: float
    sent: float
    ended: float
    first: float | None = None
    last: float | None = None
    longest_gap: float | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0
    status: int | None = None
    postponed: int = 0
    fault: str = ""

    @property
    def ttft(self) -> float | None:
        """Time to the first token; None if none came."""
        return None if self.first is None else self.first - self.due

    @property
    def itl(self) -> float | None:
        """Mean time of a token after the first; None with fewer than two."""
        if self.first is None or self.last is None or self.output_tokens <= 1:
            return None
        return (self.last - self.first) / (self.output_tokens - 1)

    @property
    def total(self) -> float:
        """Time to the end of the answer."""
        return self.ended - self.due

    @property
    def late(self) -> float:
        """How much later than it should the generator sent this."""
        return self.sent - self.due

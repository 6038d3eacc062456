"""Facts of the queue before the upstreams."""

from policies.record import record
from policies.service import Call


@record
class CallAdmitted:
    """A call that had to wait for its turn goes on; ``waited`` is in seconds.

    ``tier`` is the one that it counts to: ``default`` where its key's isn't known.
    """

    call: Call
    tier: str
    waited: float


@record
class CallShed:
    """A call was told to come back after ``retry_after`` seconds.

    ``reason`` is "late" (more work is ahead than can be waited for), "full" (the queue is), "tier" (a
    higher one needs the room), "deadline" (it would not be met) or "max_wait" (it passed).
    """

    call: Call
    tier: str
    reason: str
    retry_after: float

"""Facts of the usage ledger: what calls used, cost and took."""

from policies.record import record
from policies.service import Usage


@record
class UsageCounted:
    """What finished calls of a model, by its configured name, and a tier came to.

    ``cost`` is in billionths of a dollar, without that of ``unpriced`` calls, whose price isn't known.
    """

    model: str
    tier: str
    usage: Usage
    cost: int
    unpriced: int


@record
class EnergyCounted:
    """What calls of a model, by its configured name, took at an upstream.

    ``energy`` and ``wasted``, its part that brought no answer, are in millionths of a joule; ``measured``
    tells that a counter said so. ``flops`` are the operations, as far as the upstream tells them.
    """

    upstream: str
    model: str
    measured: bool
    energy: int
    wasted: int
    flops: float


@record
class LedgerFlushed:
    """A batch of the usage ledger was written or dropped; ``away`` tells that the database didn't take it."""

    written: int
    dropped: int
    waiting: int
    away: bool

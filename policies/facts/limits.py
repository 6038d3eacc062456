"""Facts of rate limits and of the store that counts them."""

from policies.record import record
from policies.service import Call, Usage


@record
class LimitReached:
    """A call was refused by the limit that ``bucket`` counts; ``retry_after`` is infinite if it never fits.

    ``dimension`` is a value of ``Dimension``, or "outage" where a strict limit couldn't be counted.
    """

    call: Call
    bucket: str
    dimension: str
    retry_after: float


@record
class ReservationSettled:
    """What was reserved for a call was corrected to what it used, both in tokens of input and output."""

    call: Call
    reserved: Usage
    used: Usage


@record
class StoreChanged:
    """The shared store of limits came or went: ``degraded`` means that each replica counts its own share."""

    store: str
    degraded: bool
    why: str


@record
class SettlementLost:
    """A correction couldn't be written, so that the estimate stays charged until the bucket drains."""

    store: str
    why: str

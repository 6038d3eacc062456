"""Tiers, the classes of service that are sold, and tenants, whose keys they are given to."""

from __future__ import annotations

from pydantic import Field

from gateway.settings.base import Number, Section, Text
from gateway.settings.limits import Limits, Zone
from gateway.settings.units import Duration, Share

DEFAULT_TIER = "default"


class Queue(Section):
    """`max_wait` is how many seconds a call may wait for its turn; 0 turns it away at once."""

    max_wait: Duration = 60.0


class Tier(Section):
    """A class of service: its `limits` hold for each tenant of the tier, over all of the tenant's keys in it.

    Under overload `share` is the part of the room that it owns; None is a part of what the others leave.
    Room that is idle is lent by `weight`. `zone` is where its days and months begin.
    """

    limits: Limits = Limits()
    weight: Number = Field(default=1.0, gt=0, allow_inf_nan=False)
    share: Share | None = None
    queue: Queue = Queue()
    zone: Zone | None = None


class Tenant(Section):
    """A customer: `limits` over all of its keys, the `tier` of those that name none, and its `zone`.

    `note` is for people, such as the customer's full name.
    """

    limits: Limits = Limits()
    tier: Text | None = None
    note: Text | None = None
    zone: Zone | None = None

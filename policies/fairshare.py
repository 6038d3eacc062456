"""Fair shares by tokens: the Virtual Token Counter.

Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024.
Requests differ a hundredfold in length, so that turns are no fair measure. Each tenant has a counter of
the service it got, and the smallest goes next. Whoever was away comes back at the level of those who
stayed: what it didn't use is not saved up.
"""

from collections.abc import Collection

_MANY = 4096


def cost(read: int, written: int) -> float:
    """What serving costs, in tokens: one written occupies an upstream for longer than one read."""
    return read + 2.0 * written


class VirtualTokenCounters:
    """Who goes next of those who wait. Costs are divided by the tenant's weight before they come here."""

    __slots__ = ("_active", "_counters", "_floor")

    def __init__(self) -> None:
        self._counters: dict[str, float] = {}
        self._active: dict[str, None] = {}  # in the order in which they came
        self._floor = 0.0  # where the last tenant stood when it had nothing waiting any more

    def read(self, tenant: str) -> float:
        """The service that a tenant got."""
        return self._counters.get(tenant, 0.0)

    @property
    def waiting(self) -> Collection[str]:
        """The tenants that wait."""
        return self._active.keys()

    def enter(self, tenant: str) -> None:
        """The tenant's first call in waiting comes."""
        if tenant not in self._active:
            base = min(map(self.read, self._active)) if self._active else self._floor
            self._counters[tenant] = max(self.read(tenant), base)
            self._active[tenant] = None

    def leave(self, tenant: str) -> None:
        """None of the tenant's calls waits any more."""
        if tenant in self._active:
            del self._active[tenant]
            self._floor = self.read(tenant)

    def passed(self, tenant: str) -> None:
        """A call goes through where nobody waits: as if it had entered and left."""
        counter = max(self.read(tenant), self._floor)
        self._counters[tenant] = self._floor = counter
        if len(self._counters) > _MANY:
            self._forget()

    def charge(self, tenant: str, amount: float) -> None:
        """Count service, or take back what was counted too much."""
        self._counters[tenant] = self.read(tenant) + amount

    def next(self, among: Collection[str] = ()) -> str:
        """Of those who wait, or of ``among`` where that isn't empty, the tenant that was served least."""
        return min(among or self._active, key=self.read)

    def _forget(self) -> None:
        """Who stands no higher than where newcomers begin needs no counter."""
        self._counters = {
            tenant: counter
            for tenant, counter in self._counters.items()
            if tenant in self._active or counter > self._floor
        }

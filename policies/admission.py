"""Admission: under overload, who of the callers enters, who waits and who is told when to come back.

Without it calls wait for upstreams in the order in which they came, so that whoever sends most is
served most and everybody is late. Here they wait before the route, in one fair queue (see
``policies.fairqueue`` and the papers it names), and enter as the upstreams' adaptive limits let them.
Whoever is sent away is told when a seat will be there, and that seat is kept for it.
"""

from collections.abc import AsyncGenerator, Callable

from policies.fairshare import cost
from policies.opening import opening
from policies.ports import Estimates
from policies.seating import Seating
from policies.service import Call, Reply, Service


def _alike(_: Call) -> float:
    return 1.0


class Admission:
    """Layer around a route: holds a seat from before the route is tried until its reply is left.

    ``weight`` is what a call's tenant weighs against others of its tier. Raises Overloaded, with the time
    to come back.
    """

    def __init__(
        self,
        inner: Service,
        seating: Seating,
        *,
        estimates: Estimates,
        weight: Callable[[Call], float] = _alike,
    ) -> None:
        self._inner = inner
        self._seating = seating
        self._estimates = estimates
        self._weight = weight

    @opening
    async def __call__(self, call: Call) -> AsyncGenerator[Reply]:
        seating = self._seating
        estimate = self._estimates(call)
        likely = cost(estimate.input, estimate.likely_output)
        ticket = await seating.take(call, likely, self._weight(call))
        reply: Reply | None = None
        try:
            async with self._inner(call) as reply:
                seating.answered(ticket)
                yield reply
        finally:
            usage = None if reply is None else reply.usage
            seating.leave(ticket, usage, answered=reply is not None)
            if usage is not None:
                self._estimates.learn(call, usage)

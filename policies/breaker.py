"""Breaker: the layer that asks an upstream's health before each call and tells it how the call went.

Follows linkerd2-proxy and Envoy in sitting around one upstream, below the balancer: the balancer reads
``Health.available`` and so sends nothing here that this would refuse.
"""

from collections.abc import AsyncGenerator

from policies.errors import NoHealthyUpstream
from policies.health import Health
from policies.opening import opening
from policies.ports import Clock
from policies.service import Call, Reply, Service


class Breaker:
    """Layer around one upstream. Raises ``NoHealthyUpstream`` while it is out."""

    def __init__(self, inner: Service, *, health: Health, clock: Clock) -> None:
        self._inner = inner
        self._health = health
        self._clock = clock

    @opening
    async def __call__(self, call: Call) -> AsyncGenerator[Reply]:
        now = self._clock.now()
        ticket = self._health.admit(now)
        if ticket is None:
            raise self._refusal(now)
        reply: Reply | None = None
        error: BaseException | None = None
        try:
            async with self._inner(call) as reply:
                self._health.first_event(ticket, self._clock.now())
                yield reply
        except BaseException as exc:
            error = exc
            raise
        finally:
            self._health.settle(ticket, self._clock.now(), error, reply)

    def _refusal(self, now: float) -> NoHealthyUpstream:
        report = self._health.report(now)
        return NoHealthyUpstream(
            f"the upstream is {report.state.value}: try again later, or another model",
            retry_after=report.next_probe,
        )

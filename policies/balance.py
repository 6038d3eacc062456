"""Balance: each opening of a reply is one fresh pick among equal upstreams.

The strategies and where they come from are in policies/pick.py. What they have in common is here:

- an upstream that was tried for this call isn't picked again while another is available;
- an upstream that is half-open gets its trial from the next call that hasn't failed yet, since a
  trial that waits for the strategy's favour could wait for ever;
- when every upstream is out, one is tried before its time (Envoy's panic threshold, at 100%): a group
  that refuses everybody would never learn that it works again;
- a failure is recorded as a latency: an upstream that fails fast would otherwise look fast.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from math import isfinite
from random import Random

from policies.errors import AttemptHeldBack, NoHealthyUpstream, UpstreamError, UpstreamRejected
from policies.facts import BalancePanicked
from policies.member import Member
from policies.opening import opening
from policies.pick import StrategyName, strategy
from policies.ports import Clock, Meter
from policies.service import Call, Reply


@dataclass(frozen=True, slots=True)
class BalanceOptions:
    """``penalty`` is the least latency, in seconds, that a failure counts as.

    ``gamma`` weighs cost against latency: at 1 a member at twice the price must be twice as fast, at
    0 price doesn't matter. ``bound`` is affinity's: how far above its fair share a member may go.
    """

    strategy: StrategyName = "latency"
    penalty: float = 5.0
    gamma: float = 0.0
    bound: float = 1.5

    def __post_init__(self) -> None:
        if self.penalty < 0 or self.gamma < 0:
            raise ValueError("penalty and gamma must be 0 or more")
        if self.bound <= 1:
            raise ValueError("bound must be above 1: at 1 every member would have to be equally busy")


class Group:
    """Equal upstreams and the strategy that picks among them."""

    def __init__(
        self, members: Sequence[Member], *, options: BalanceOptions, rng: Random, meter: Meter
    ) -> None:
        if not members:
            raise ValueError("a group needs at least one upstream")
        self.members = tuple(members)
        self.options = options
        self._meter = meter
        self._strategy = strategy(options.strategy, rng, gamma=options.gamma, bound=options.bound)

    def pick(self, call: Call, now: float) -> Member:
        """The upstream for the next attempt. Raises NoHealthyUpstream when there is none."""
        ready: list[Member] = []
        trials: list[Member] = []
        for member in self.members:
            if member.available(now):
                (trials if member.on_trial(now) else ready).append(member)
        if not call.attempts:
            if trials:
                return trials[0]
            choice = ready
        else:
            choice = (
                [member for member in ready if not member.tried(call)]
                or [member for member in trials if not member.tried(call)]
                or [member for member in (*ready, *trials) if not member.failed_for_good(call)]
            )
        # Where all are at their limits, a call waits its turn at one of them.
        choice = choice or [
            member
            for member in self.members
            if member.worth_waiting(now) and not member.failed_for_good(call)
        ]
        if choice:
            return choice[0] if len(choice) == 1 else self._strategy.choose(choice, call, now)
        return self._panicked(call, now)

    def another(self, call: Call, now: float) -> bool:
        """Whether a pick would now find an upstream that wasn't tried for this call."""
        return any(member.available(now) and not member.tried(call) for member in self.members)

    def penalise(self, member: Member, now: float, elapsed: float) -> None:
        """Record a failure as a latency: no better than the penalty, nor than any other member's."""
        worst = max(other.latency.read(now) or 0.0 for other in self.members)
        member.latency.observe(now, max(elapsed, self.options.penalty, worst))

    def _panicked(self, call: Call, now: float) -> Member:
        if all(member.on_trial(now) for member in self.members):
            for member in sorted(self.members, key=lambda member: member.wait(now)):
                health = member.health
                if health and member.within_limits(now) and not member.tried(call) and health.panic(now):
                    self._meter.emit(BalancePanicked(call, member.name))
                    return member
        wait = min(member.wait(now) for member in self.members)
        raise NoHealthyUpstream(
            f"no upstream of {call.model} is available now: try again later, or another model",
            retry_after=wait if isfinite(wait) else None,
        )


class Balance:
    """Layer that is a service: opens each reply at the member that the group picks."""

    def __init__(self, group: Group, *, clock: Clock) -> None:
        self._group = group
        self._clock = clock

    def another(self, call: Call) -> bool:
        """For ``Retry``: whether another upstream than those tried could be picked now."""
        return self._group.another(call, self._clock.now())

    @opening
    async def __call__(self, call: Call) -> AsyncGenerator[Reply]:
        started = self._clock.now()
        member = self._group.pick(call, started)
        member.opened(call, started)
        elapsed: float | None = None
        try:
            async with member.service(call) as reply:
                now = self._clock.now()
                elapsed = now - started
                member.answered(call, now, elapsed, reply)
                yield reply
            if not reply.stream:
                member.finished(self._clock.now(), elapsed, reply)
        except UpstreamError as error:
            if not isinstance(error, UpstreamRejected | AttemptHeldBack):
                now = self._clock.now()
                self._group.penalise(member, now, elapsed or now - started)
            raise
        except BaseException:
            if elapsed is None and call.stream:
                now = self._clock.now()
                member.waited(now, now - started)
            raise
        finally:
            member.left(call)

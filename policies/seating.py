"""Seating: calls wait for seats in a fair queue and take them as the upstreams' limits allow.

One object serves every way that leads to the same upstreams, as ``policies.permits`` does for one
upstream: tiers and tenants are weighed against each other wherever their calls come from.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from math import inf
from random import Random
from statistics import median

from policies.errors import GatewayError, Overloaded
from policies.facts import CallAdmitted, CallShed
from policies.fairqueue import AdmissionOptions, FairQueue
from policies.lane import Ticket
from policies.ports import Alarm, AlarmClock, Meter
from policies.seats import Seats
from policies.service import Call, Usage
from policies.tiers import TierOptions

_SAMPLES = 31
_WHY = {
    "late": "its turn would not come soon enough",
    "full": "the queue is full",
    "tier": "callers of a higher tier need the room",
    "deadline": "it would not be answered within its time",
    "max_wait": "it waited as long as its tier allows",
}


class Seating:
    """Gives seats: at once where one is free and nobody waits, else in the order of ``queue``.

    Where all upstreams are out everybody gets one: an outage is no overload.
    """

    def __init__(
        self, options: AdmissionOptions, *, seats: Seats, clock: AlarmClock, rng: Random, meter: Meter
    ) -> None:
        self._seats = seats
        self._clock = clock
        self._meter = meter
        self.queue = FairQueue(options, rng=rng, shed=self._send_away)
        self._turns: dict[Ticket, asyncio.Future[GatewayError | None]] = {}
        self._entering = 0  # called, but not yet at an upstream
        self._first_tokens: deque[float] = deque(maxlen=_SAMPLES)
        self._alarm: Alarm | None = None
        self._alarm_at = 0.0
        self._watching = False

    async def take(self, call: Call, cost: float, weight: float) -> Ticket:
        """Take a seat, now or in turn. Raises Overloaded, with the time to come back.

        ``cost`` is what the call will probably cost, ``weight`` what its tenant weighs against others of
        its tier. The time that it waited is added to ``call.queued``.
        """
        now = self._clock.now()
        ticket = self.queue.ticket(call, cost, weight, now)
        if not self.queue.waiting and self._free(now) > 0:
            self.queue.sit(ticket, now)
        else:
            await self._wait(ticket, now)
        return ticket

    def answered(self, ticket: Ticket) -> None:
        """The first token came."""
        self._first_tokens.append(self._clock.now() - ticket.seated)

    def leave(self, ticket: Ticket, usage: Usage | None, *, answered: bool) -> None:
        """The seat is free again; ``usage`` is what the call took, if that is known."""
        self.queue.leave(ticket, self._clock.now(), usage, answered=answered)
        self._drain()

    def rule(self, tiers: Mapping[str, TierOptions]) -> None:
        """From now on these are the tiers. Whoever waits keeps waiting, by the new rules."""
        self.queue.rule(tiers)
        self._drain()

    def _drain(self) -> None:
        """Let in whom there are seats for."""
        if not self._turns:
            return
        now = self._clock.now()
        first_token = median(self._first_tokens) if self._first_tokens else 0.0
        while self.queue.waiting and self._free(now) > 0:
            ticket = self.queue.next(now, self._seats.limit(now), first_token)
            if ticket is None:
                break
            turn = self._turns.pop(ticket)
            if turn.done():  # cancelled, and its task has not yet run
                self.queue.leave(ticket, now, None, answered=False)
            else:
                self._entering += 1
                turn.set_result(None)
        self._look_again(self._seats.ready_at(now))

    def _free(self, now: float) -> int:
        free = self._seats.free(now) - self._entering
        return free if free > 0 or self._seats.limit(now) else 1

    async def _wait(self, ticket: Ticket, now: float) -> None:
        """Wait for a seat. Raises Overloaded."""
        opens = self._seats.opens_at(now)
        if opens > now and opens > min(ticket.call.deadline, now + ticket.tier.options.max_wait):
            raise self._refusal(ticket, "late", now)
        why = self.queue.join(ticket, now, self._seats.limit(now))
        if why is not None:
            raise self._refusal(ticket, why, now)
        if not self._watching:
            self._watching = True
            self._seats.watch(self._drain)
        turn: asyncio.Future[GatewayError | None] = asyncio.get_running_loop().create_future()
        self._turns[ticket] = turn
        try:
            self._drain()
            await self._turn(ticket, turn, now + ticket.tier.options.max_wait)
        finally:
            if self._watching and not self._turns:
                self._rest()
            ticket.call.queued += self._clock.now() - now
        self._meter.emit(CallAdmitted(ticket.call, ticket.tier.name, ticket.seated - now))

    async def _turn(self, ticket: Ticket, turn: "asyncio.Future[GatewayError | None]", until: float) -> None:
        try:
            async with self._clock.timeout_at(until):
                refusal = await turn
        except BaseException as error:
            now = self._clock.now()
            if self._turns.pop(ticket, None) is not None:
                self.queue.give_up(ticket)
            elif turn.done() and not turn.cancelled() and turn.result() is None:
                self._entering -= 1
                self.queue.leave(ticket, now, None, answered=False)
                self._drain()
            if isinstance(error, TimeoutError):
                raise self._refusal(ticket, "max_wait", now) from None
            raise
        if refusal is not None:
            raise refusal
        self._entering -= 1
        # Once it is at its upstream, see whether there is room for another.
        self._look_again(self._clock.now())

    def _send_away(self, ticket: Ticket, why: str) -> None:
        refusal = self._refusal(ticket, why, self._clock.now())
        turn = self._turns.pop(ticket)
        if not turn.done():
            turn.set_result(refusal)

    def _refusal(self, ticket: Ticket, why: str, now: float) -> Overloaded:
        opens_in = max(0.0, self._seats.opens_at(now) - now)
        retry_after = self.queue.retry_after(ticket, now, self._seats.limit(now), opens_in)
        self._meter.emit(CallShed(ticket.call, ticket.tier.name, why, retry_after))
        return Overloaded(
            f"{ticket.call.model} is overloaded: {_WHY[why]}. Try again in {retry_after:.1f} s.",
            retry_after=retry_after,
        )

    def _look_again(self, when: float) -> None:
        """Drain at ``when``, unless that is never or there is an alarm before it."""
        if not self._turns or when == inf:
            return
        if self._alarm is not None:
            if self._alarm_at <= when:
                return
            self._alarm.cancel()
        self._alarm_at = when
        self._alarm = self._clock.call_at(when, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._drain()

    def _rest(self) -> None:
        """Nobody waits any more."""
        self._watching = False
        self._seats.unwatch(self._drain)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

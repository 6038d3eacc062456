"""How a call travels: both stacks of layers, in order, with the reason for each place."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from gateway.cache.caching import Caching
from gateway.cache.layers import cached, space_of, trusted_by
from gateway.catalogue import Catalogue, Entry
from gateway.estimates import TokenEstimates
from gateway.parts import Parts
from gateway.providers.caller import caller_headers
from gateway.providers.openai import OpenAIUpstream
from gateway.roads import Roads
from gateway.settings import LocalProvider, Model, Target, Timeouts
from gateway.settings.caching import ModelCache
from gateway.upstreams import Upstream
from gateway.upstreams.terms import context_window_of
from policies.adaptive import AdaptiveConcurrency
from policies.admission import Admission
from policies.balance import Balance, BalanceOptions, Group
from policies.breaker import Breaker
from policies.budget import BudgetOptions, RetryBudget
from policies.deadline import Deadline, DeadlineOptions
from policies.failover import Failover, Step
from policies.hedge import Hedge, HedgeOptions
from policies.member import Member
from policies.observe import ObserveAttempts, ObserveCalls
from policies.ports import SemanticIndex
from policies.rescue import Rescue, RescueOptions
from policies.retry import Retry, RetryOptions
from policies.service import Layer, Service
from policies.throttle import ClientThrottle
from policies.timers import SilenceTimers, TimerOptions

if TYPE_CHECKING:
    from gateway.tracing import Tracing

_STEP_WAIT = 0.05
_LAST_WAIT = 10.0
"""Seconds that an admitted call waits for a permit that another took before it, or for a hold-off's end."""

_STEP_PATIENCE = 0.05
_LAST_PATIENCE = 60.0
"""The longest backoff: before a later step just what rides out a reset, else what a client may bear."""


class Stacks:
    """Builds the services of one configuration. Routes that share an upstream share its member."""

    def __init__(  # noqa: PLR0913 - its ports
        self,
        roads: Roads,
        parts: Parts,
        estimates: TokenEstimates,
        *,
        limit: Layer | None = None,
        caching: Caching | None = None,
        tracing: "Tracing | None" = None,
    ) -> None:
        self._roads = roads
        self._parts = parts
        self._estimates = estimates
        self._limit = limit
        self._caching = caching
        self._tracing = tracing
        self.budgets: dict[tuple[str, int], RetryBudget] = {}
        self._callers = caller_headers(roads.queues.weight)
        self._members: WeakValueDictionary[tuple[str, str, Timeouts, float], Member] = WeakValueDictionary()
        self._continuing_accounts = {
            account.name
            for accounts in roads.accounts.values()
            for account in accounts
            if account.prefill is not None
        }

    def catalogue(self, models: Mapping[str, Model]) -> Catalogue:
        """Every configured model, ready to be asked for; those behind a glob once they are."""
        return Catalogue({name: self._builder(name, model) for name, model in models.items()})

    def _builder(self, name: str, model: Model) -> Callable[[str], Entry]:
        budgets = [RetryBudget(BudgetOptions(ratio=model.retries.budget)) for _ in model.route]
        self.budgets |= {(name, number): budget for number, budget in enumerate(budgets, start=1)}
        cached = model.cache is not None
        return lambda asked: Entry(name, self.per_request(model, asked, budgets), cached=cached)

    def per_request(self, model: Model, asked: str, budgets: Sequence[RetryBudget]) -> Service:
        """What a call for ``asked`` passes through, outermost last; each step has its own budget."""
        parts = self._parts
        steps = [self._members_of(model, targets, asked) for targets in model.route]
        # The steps of the route in their order: the first that answers ends the search.
        service = self._route(
            [
                step
                for members, budget in zip(steps, budgets, strict=True)
                for step in self._steps(model, members, budget)
            ]
        )
        # Above failover, since a broken stream may be carried on at any step.
        service = Rescue(
            service,
            RescueOptions(on_stream_break=model.on_stream_break),
            continuing=self._continuing(model, steps),
            meter=parts.meter,
        )
        # Above all that holds a permit: calls wait for one here, in a fair order, and keep their seat as long
        # as they may need another. All names that lead to the same upstreams share the queue.
        seating = self._roads.queues.before(self._roads.of_route(model, asked))
        service = Admission(service, seating, estimates=self._estimates)
        # Above all that waits and tries again: everything spends from the call's one time.
        service = Deadline(service, options=DeadlineOptions(model.timeouts.total), clock=parts.clock)
        if model.cache is not None and self._caching is not None:
            # Above the deadline, since what it has takes no time, and what it shares has its own. A hit
            # costs no tokens, and needs no seat.
            space = space_of(model)
            service = cached(
                service,
                model.cache,
                self._caching,
                parts,
                space=space,
                trusted=trusted_by(model, self._roads.accounts),
                semantic=self._semantic(model, model.cache, self._caching, space),
            )
        if self._limit is not None:
            # Above all that costs: reserves before, settles after. What is refused here burns nothing.
            service = self._limit(service)
        # Outermost: sees what the client gets, whatever happened below.
        return ObserveCalls(service, clock=parts.clock, meter=parts.meter)

    def _semantic(
        self, model: Model, cache: ModelCache, caching: Caching, space: str
    ) -> SemanticIndex | None:
        """What finds answers to prompts that mean the same, where the route wants that."""
        if cache.semantic is None:
            return None
        semantics = caching.semantics()
        target = semantics.target
        # What a reload took away is asked the old way until the restart that the cache's own settings take.
        if target is not None and target.provider in self._roads.providers:
            members = self._members_of(model, (target,), target.model)
            semantics.reach(self._balance(model, members))
        return semantics.lookup(
            cache.semantic.options(),
            space,
            lambda answer: answer.age(self._parts.wall_time()) <= cache.exact,
        )

    def per_upstream(self, upstream: Upstream, timeouts: Timeouts, wait: float) -> Service:
        """What an attempt at one upstream passes through, outermost last."""
        parts, name = self._parts, upstream.account.name
        service: Service = OpenAIUpstream(
            upstream.account,
            upstream.model,
            parts.transport,
            connect_timeout=timeouts.connect,
            wall_time=parts.wall_time,
            caller_headers=self._callers if isinstance(upstream.provider, LocalProvider) else None,
        )
        # Innermost: times what the upstream does, and no waiting of our own.
        service = SilenceTimers(
            service,
            upstream=name,
            options=TimerOptions(timeouts.first_token, timeouts.stall, timeouts.unary),
            clock=parts.clock,
            meter=parts.meter,
        )
        # Inside the gates, so that the history tells what was really sent.
        service = ObserveAttempts(
            service, upstream=name, model=upstream.model, clock=parts.clock, meter=parts.meter
        )
        if self._tracing is not None:
            # Around the entry in the history, which tells how the attempt ended.
            service = self._tracing.attempts(service, upstream)
        # A permit lasts for the whole stream.
        service = AdaptiveConcurrency(
            service,
            upstream=name,
            permits=upstream.permits,
            patience=wait,
            clock=parts.clock,
            meter=parts.meter,
        )
        # Before a permit is waited for: an upstream that refuses nearly everything isn't worth the wait.
        service = ClientThrottle(
            service, upstream=name, ratio=upstream.ratio, clock=parts.clock, meter=parts.meter
        )
        # Outermost: an upstream that is out costs nothing, and what the gates hold back is no failure.
        return Breaker(service, health=upstream.health, clock=parts.clock)

    def _steps(self, model: Model, members: Sequence[Member], budget: RetryBudget) -> list[Step]:
        """One step of a route, and after it its larger members for prompts too long for the smaller ones."""
        sizes = sorted({member.context_window for member in members if member.context_window is not None})
        return [
            self._step(model, members, budget),
            *(
                self._step(model, larger, budget, beyond=size)
                for size in sizes
                if (larger := [m for m in members if m.context_window is None or m.context_window > size])
            ),
        ]

    def _step(
        self, model: Model, members: Sequence[Member], budget: RetryBudget, *, beyond: int | None = None
    ) -> Step:
        """One step of a route, from the pick outwards."""
        parts = self._parts
        balance = self._balance(model, members)
        is_last = members[0].patience == _LAST_WAIT
        retries = RetryOptions(
            attempts=model.retries.attempts, patience=_LAST_PATIENCE if is_last else _STEP_PATIENCE
        )
        # Above the balance, so that every attempt is a fresh pick.
        service: Service = Retry(
            balance,
            retries,
            budget=budget,
            another=balance.another,
            clock=parts.clock,
            rng=parts.rng,
            meter=parts.meter,
        )
        if model.hedge is not None:
            # Above retry, since the race is for the step's first token. ``another`` is false where all are
            # at their limits, so nothing is hedged under overload.
            service = Hedge(
                service,
                HedgeOptions(after=model.hedge.after, tiers=frozenset(model.hedge.tiers)),
                budget=budget,
                worthwhile=balance.another,
                clock=parts.clock,
                meter=parts.meter,
            )
        names = ", ".join(dict.fromkeys(member.name for member in members))
        windows = {(member.name, member.model): member.context_window for member in members}
        known = [size for size in windows.values() if size is not None]
        return Step(
            names,
            service,
            context_window=max(known) if len(known) == len(windows) else None,
            another=balance.another,
            window_of=lambda attempt: windows.get((attempt.upstream, attempt.model)),
            beyond=beyond,
        )

    def _balance(self, model: Model, members: Sequence[Member]) -> Balance:
        parts = self._parts
        options = BalanceOptions(strategy=model.balance)
        return Balance(Group(members, options=options, rng=parts.rng, meter=parts.meter), clock=parts.clock)

    def _continuing(self, model: Model, steps: Sequence[Sequence[Member]]) -> Service | None:
        """The way to those members of a route that can write on from a given beginning."""
        able = [
            [member for member in members if member.name in self._continuing_accounts] for members in steps
        ]
        balances = [self._balance(model, members) for members in able if members]
        steps_on = [Step("continue", balance, another=balance.another) for balance in balances]
        return self._route(steps_on) if steps_on else None

    def _route(self, steps: Sequence[Step]) -> Service:
        """A single step needs nobody to choose the next."""
        return steps[0].service if len(steps) == 1 else Failover(steps, meter=self._parts.meter)

    def _members_of(self, model: Model, targets: Sequence[Target], asked: str) -> list[Member]:
        wait = _LAST_WAIT if targets == model.route[-1] else _STEP_WAIT
        return [
            self._member(upstream, model.timeouts, wait)
            for target in targets
            for upstream in self._roads.behind(target, asked)
        ]

    def _member(self, upstream: Upstream, timeouts: Timeouts, wait: float) -> Member:
        key = (upstream.account.name, upstream.model, timeouts, wait)
        member = self._members.get(key)
        if member is None:
            member = self._members[key] = Member(
                upstream.account.name,
                self.per_upstream(upstream, timeouts, wait),
                model=upstream.model,
                weight=upstream.provider.weight,
                cost=upstream.price,
                priority=upstream.provider.priority,
                health=upstream.health,
                limits=(upstream.permits,),
                patience=wait,
                context_window=context_window_of(upstream.provider, upstream.model),
                latency=upstream.latency,
                schedule=upstream.share,
            )
        return member

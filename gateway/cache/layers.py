"""The cache's layers, in order, with the reason for each place."""

from collections.abc import Mapping, Sequence

from gateway.cache.caching import Caching
from gateway.parts import Parts
from gateway.providers.dialect import Account
from gateway.settings import ASKED, Model
from gateway.settings.caching import ModelCache
from policies.cache.coalesce import Coalesce
from policies.cache.exact import Cache, Shelf
from policies.cache.fill import Fill, Trusted
from policies.cache.replicas import ReplicaOptions, Replicas
from policies.errors import StreamInterrupted
from policies.ports import SemanticIndex
from policies.service import Call, Reply, Service


def cached(  # noqa: PLR0913 - what it works with
    service: Service,
    cache: ModelCache,
    caching: Caching,
    parts: Parts,
    *,
    space: str,
    trusted: Trusted,
    semantic: SemanticIndex | None,
) -> Service:
    """The cache around ``service``, outermost last. ``space`` parts the answers of unlike routes."""
    options = cache.options()
    # Innermost: each answer is stored once, whoever waits for it.
    service = Fill(
        service,
        options,
        store=caching.store,
        trusted=trusted,
        wall_time=parts.wall_time,
        semantic=semantic,
    )
    if caching.leases is not None:
        # Of the replicas one asks, and the others wait for its answer.
        service = Replicas(
            service,
            options,
            ReplicaOptions(),
            store=caching.store,
            leases=caching.leases,
            clock=parts.clock,
            wall_time=parts.wall_time,
            spawn=caching.spawn,
            meter=parts.meter,
        )
    # Above the replicas, since a lease is a process's: equal calls share one that belongs to no client.
    service = Coalesce(service, clock=parts.clock, meter=parts.meter)
    # Outermost: what was answered before asks nobody.
    return Cache(
        service,
        options,
        shelf=Shelf(caching.store, space, semantic),
        clock=parts.clock,
        wall_time=parts.wall_time,
        spawn=caching.spawn,
        meter=caching.meter,
    )


def space_of(model: Model) -> str:
    """Routes with the same first step share their answers."""
    return ",".join(sorted(str(target) for target in model.route[0]))


def trusted_by(model: Model, accounts: Mapping[str, Sequence[Account]]) -> Trusted:
    """Which answers are given again: whole ones of the first step, not those of what stands in for it."""
    first = {
        (account.name, target.model) for target in model.route[0] for account in accounts[target.provider]
    }

    def trusted(call: Call, reply: Reply) -> bool:
        joined = any(attempt.outcome == StreamInterrupted.__name__ for attempt in call.attempts)
        served = (reply.upstream, ASKED if reply.model == call.model else reply.model)
        return not joined and (served in first or (reply.upstream, reply.model) in first)

    return trusted

"""Where calls can go: from a route's targets to the upstreams behind them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.providers.dialect import Account
from gateway.queues import Queues
from gateway.settings import ASKED, LocalProvider, Model, Provider, Target
from gateway.upstreams import Upstream, Upstreams


@dataclass(frozen=True, slots=True)
class Roads:
    """The configured providers, their accounts, and the upstreams with their queues."""

    providers: Mapping[str, Provider | LocalProvider]
    accounts: Mapping[str, Sequence[Account]]
    upstreams: Upstreams
    queues: Queues

    def behind(self, target: Target, asked: str) -> list[Upstream]:
        """The upstreams of a target, one an account; ``asked`` is the name that a glob passes through."""
        passed_on = target.model == ASKED
        return [
            self.upstreams.get(
                self.providers[target.provider],
                account,
                asked if passed_on else target.model,
                passed_on=passed_on,
            )
            for account in self.accounts[target.provider]
        ]

    def of_route(self, model: Model, asked: str) -> list[Upstream]:
        """All upstreams that a call for this model can reach."""
        return [
            upstream
            for targets in model.route
            for target in targets
            for upstream in self.behind(target, asked)
        ]

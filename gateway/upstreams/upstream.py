"""One upstream: an account and a model, and what is known of it."""

from dataclasses import dataclass, field

from gateway.providers.dialect import Account
from gateway.settings import LocalProvider, Provider
from policies.health import Health
from policies.member import PeakEwma
from policies.permits import Permits
from policies.probe import Prober
from policies.schedule import CurrentTerms
from policies.status import StatusHint
from policies.throttle import AcceptRatio


@dataclass(eq=False)
class Upstream:
    """One account and model, and what is known of it.

    ``price`` is in US dollars for a million tokens, input and output taken together.
    """

    provider: Provider | LocalProvider
    account: Account
    model: str
    passed_on: bool
    health: Health
    permits: Permits
    ratio: AcceptRatio
    prober: Prober
    terms: CurrentTerms | None
    status: StatusHint | None
    price: float
    latency: PeakEwma = field(default_factory=PeakEwma)

    @property
    def names(self) -> tuple[str, ...]:
        """What an operator may call it: provider, account (provider#2), or account/model."""
        account = self.account.name
        return (account.partition("#")[0], account, f"{account}/{self.model}")

    def report(self, now: float) -> "UpstreamReport":
        """What an operator sees of it."""
        health = self.health.report(now)
        limit = self.permits.limit
        held_off = max(0.0, limit.retry_at - now)
        return UpstreamReport(
            upstream=self.account.name,
            model=self.model,
            passed_on=self.passed_on,
            state=health.state.value,
            why=health.why or (f"busy: held off for {held_off:.0f} s more" if held_off else ""),
            next_probe=health.next_probe,
            limit=limit.limit,
            inflight=limit.inflight,
            waiting=self.permits.waiting,
            held_off=held_off,
            first_token=self.latency.read(now),
            error_ratio=health.error_ratio,
            status_page=None if self.status is None else self.status.indicator,
            weight=self.provider.weight * health.weight_factor * self.share(now),
        )

    def share(self, now: float) -> float:
        """By how much the hour and what its status page admits scale its weight."""
        share = 1.0 if self.terms is None else self.terms.weight()
        return share if self.status is None else share * self.status.factor(now)


@dataclass(frozen=True, slots=True)
class UpstreamReport:
    """One upstream as this process sees it; times in seconds.

    ``passed_on`` tells that the model's name was the client's choice.
    ``next_probe`` is None when nothing is planned, ``first_token`` when it wasn't used lately.
    ``held_off`` is how long it still wants to hear nothing from us.
    """

    upstream: str
    model: str
    passed_on: bool
    state: str
    why: str
    next_probe: float | None
    limit: int
    inflight: int
    waiting: int
    held_off: float
    first_token: float | None
    error_ratio: float
    status_page: str | None
    weight: float

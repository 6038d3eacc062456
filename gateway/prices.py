"""What calls cost: the price of an upstream's model, and the amount for a call's tokens.

Amounts are whole billionths of a dollar, so that sums over millions of calls are exact, in whatever order
they are added up. A model whose price nobody told has no cost, which is not the same as a cost of 0.
"""

from collections.abc import Mapping
from functools import lru_cache

from gateway.settings import LocalProvider, Provider
from gateway.settings.names import by_name
from gateway.settings.prices import Price, PriceHours
from gateway.settings.upkeep import WEEK
from policies.schedule import Schedule, Terms, Window
from policies.service import Usage

UNIT = 10**9
"""So many units of money make a dollar."""

_PER_TOKEN = UNIT / 10**6
"""From dollars for a million tokens to units for one."""

_NOTHING = Price(input=0, output=0)
"""The bundled model's: nobody sends a bill for it, what it costs is electricity."""


class Tariff:
    """What one model at one account costs: without a price, only what its answers say of that."""

    __slots__ = ("_cached", "_input", "_output", "_reasoning", "_schedule", "_tells", "known")

    def __init__(self, price: Price | None, *, tells_cost: bool = False) -> None:
        self.known = price is not None
        self._tells = tells_cost
        price = price or _NOTHING
        cached, reasoning = price.cached_input, price.reasoning
        self._input = price.input * _PER_TOKEN
        self._output = price.output * _PER_TOKEN
        self._cached = self._input if cached is None else cached * _PER_TOKEN
        self._reasoning = self._output if reasoning is None else reasoning * _PER_TOKEN
        self._schedule = None if price.hours is None else _schedule(price.hours)

    def cost(self, usage: Usage, wall_time: float) -> int | None:
        """What a call costs that ended at ``wall_time``, in billionths of a dollar; None if not known."""
        if self._tells and usage.cost is not None:
            return round(usage.cost * UNIT)
        if not self.known:
            return None
        cached, reasoning = min(usage.cached_input, usage.input), min(usage.reasoning, usage.output)
        amount = (
            (usage.input - cached) * self._input
            + cached * self._cached
            + (usage.output - reasoning) * self._output
            + reasoning * self._reasoning
        )
        return round(amount * self._factor(wall_time))

    def per_token(self, wall_time: float) -> tuple[float, float]:
        """The most that a token in and a token out cost, in dollars; 0 where the price isn't known."""
        factor = self._factor(wall_time) / UNIT
        return max(self._input, self._cached) * factor, max(self._output, self._reasoning) * factor

    def _factor(self, wall_time: float) -> float:
        return 1.0 if self._schedule is None else self._schedule.at(wall_time).weight


class Tariffs:
    """The tariffs of all configured accounts. ``of`` is cheap: every call asks it."""

    def __init__(self, providers: Mapping[str, Provider | LocalProvider]) -> None:
        self._providers = providers
        self.of = lru_cache(maxsize=4096)(self._of)

    def _of(self, upstream: str, model: str) -> Tariff:
        """The tariff of an account (provider, or provider#2) and a model there."""
        provider = self._providers.get(upstream.partition("#")[0])
        if provider is None:
            return Tariff(None)
        tells = isinstance(provider, Provider) and provider.facts.tells_cost
        return Tariff(price_of(provider, model), tells_cost=tells)


def price_of(provider: Provider | LocalProvider, model: str) -> Price | None:
    """The account's own price for a model, else its provider's list price; a name goes before a glob."""
    if isinstance(provider, LocalProvider):
        return _NOTHING
    listed = provider.facts.prices
    return by_name(model, provider.prices, {} if listed is None else listed.models)


def _schedule(hours: PriceHours) -> Schedule:
    """A schedule whose weight is the factor on the price."""
    return Schedule(
        zone=hours.zone,
        windows=tuple(
            Window(
                start=window.start,
                end=window.end,
                days=frozenset(WEEK.index(day) for day in window.days),
                terms=Terms(weight=window.factor),
            )
            for window in hours.windows
        ),
    )

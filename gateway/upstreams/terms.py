"""The terms of an account, from its settings: what it costs, and what it may do at which hour."""

from gateway import prices
from gateway.settings import LocalProvider, Provider
from gateway.settings.names import by_name
from gateway.settings.upkeep import WEEK
from policies.schedule import Schedule, Terms, Window

_LOCAL_PRICE = 0.001
_UNKNOWN_PRICE = 1.0


def schedule_of(provider: Provider | LocalProvider) -> Schedule | None:
    """The configured windows, with the provider's own terms where a window or the hour says nothing."""
    settings = provider.schedule
    if settings is None:
        return None
    return Schedule(
        zone=settings.zone,
        windows=tuple(
            Window(
                start=window.start,
                end=window.end,
                days=frozenset(WEEK.index(day) for day in window.days),
                terms=Terms(
                    weight=1.0 if window.weight is None else window.weight / provider.weight,
                    max_concurrency=(
                        provider.max_concurrency if window.max_concurrency is None else window.max_concurrency
                    ),
                ),
            )
            for window in settings.windows
        ),
        otherwise=Terms(max_concurrency=provider.max_concurrency),
    )


def context_window_of(provider: Provider | LocalProvider, model: str) -> int | None:
    """How many tokens fit the model, prompt and answer together; None where nobody said."""
    if isinstance(provider, LocalProvider):
        return None
    listed = provider.facts.context_windows
    return by_name(model, provider.context_windows, {} if listed is None else listed.models)


def price_of(provider: Provider | LocalProvider, model: str) -> float:
    """What balancing by price compares: a token in and a token out, in dollars for a million."""
    listed = prices.price_of(provider, model)
    return _UNKNOWN_PRICE if listed is None else max(listed.input + listed.output, _LOCAL_PRICE)

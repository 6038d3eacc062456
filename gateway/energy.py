"""What calls take of energy: measured where the upstream tells it, else estimated from tokens.

A token takes about two floating-point operations for each parameter that runs for it (Kaplan et al.,
"Scaling Laws for Neural Language Models", arXiv 2001.08361). At the share of a server's peak that prompts and
answers reach, its power makes joules of them: those of prompts, whose tokens run together, are a third of an
answer's. docs/energy.md has the figures, where they come from, and how far off they may be.

Amounts are whole millionths of a joule, so that sums of many calls are exact.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from gateway.settings import LocalProvider, Provider
from gateway.settings.energy import Energy, EnergyData, energy_data
from gateway.settings.names import by_name
from policies.service import Usage

UNIT = 10**6
"""So many units of energy make a joule."""

_MOST = 10**15
"""No call takes more: sums stay within what a database counts."""

_FLOPS = 2e9
"""Operations of a token for each billion of active parameters."""

_WATT_HOUR = 3600
_THOUSAND = 1000

_ACTIVE = re.compile(r"(?:^|[-_/:.])a(\d+(?:\.\d+)?)b(?![a-z0-9])", re.IGNORECASE)
_SIZE = re.compile(r"(?:^|[-_/:.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", re.IGNORECASE)


class Spent(NamedTuple):
    """``amount`` is in ``UNIT``; ``measured`` tells that it is a counter's and no estimate.

    ``flops`` are the floating-point operations, where the upstream tells them.
    """

    amount: int = 0
    measured: bool = False
    flops: float | None = None


class TokenEnergy(NamedTuple):
    """Joules a token, those of cooling and the like included."""

    input: float
    cached_input: float
    output: float


class Rate:
    """What the tokens of one model at one account take."""

    __slots__ = ("_cached", "_input", "_output", "_tells")

    def __init__(self, per_token: TokenEnergy, *, tells_energy: bool = False) -> None:
        self._input, self._cached, self._output = (joules * UNIT for joules in per_token)
        self._tells = tells_energy

    def spent(self, usage: Usage) -> Spent:
        """What a call of that usage took."""
        if self._tells and usage.joules is not None:
            return Spent(min(round(usage.joules * UNIT), _MOST), usage.measured, usage.flops)
        cached = min(usage.cached_input, usage.input)
        amount = (usage.input - cached) * self._input + cached * self._cached + usage.output * self._output
        return Spent(min(round(amount), _MOST))


class Rates:
    """The rates of all configured accounts. ``of`` is cheap: every call asks it."""

    def __init__(self, providers: Mapping[str, Provider | LocalProvider]) -> None:
        self._providers = providers
        self.of = lru_cache(maxsize=4096)(self._of)

    def spent(self, upstream: str | None, model: str | None, usage: Usage | None) -> Spent | None:
        """What an answer took; None where nobody answered, or counted its tokens."""
        if upstream is None or model is None or usage is None:
            return None
        return self.of(upstream, model).spent(usage)

    def _of(self, upstream: str, model: str) -> Rate:
        """The rate of an account (provider, or provider#2) and a model there."""
        provider = self._providers.get(upstream.partition("#")[0])
        if isinstance(provider, LocalProvider):
            local = energy_data().local
            return Rate(TokenEnergy(local.input, local.input, local.output), tells_energy=True)
        own = None if provider is None else by_name(model, provider.energy)
        return Rate(per_token(model, own), tells_energy=own is not None and own.told)


def per_token(model: str, own: Energy | None = None) -> TokenEnergy:
    """What a model's tokens take: as its account says, and as follows from its size where it says nothing."""
    data = energy_data()
    told = {} if own is None else own.model_dump(exclude_none=True)
    server, active = data.server, told.get("active") or active_parameters(model, data)
    at_peak = active * _FLOPS / server.peak_flops * server.watts * server.load
    prompt = told.get("input", at_peak / server.prefill)
    cached = told.get("cached_input", prompt * server.cached)
    answer = told.get("output", at_peak / server.decode)
    pue = told.get("pue", server.pue)
    return TokenEnergy(prompt * pue, cached * pue, answer * pue)


def active_parameters(model: str, data: EnergyData) -> float:
    """Billions of parameters that run for a token: as listed, else as the name says, else as a class has."""
    name = model.lower()
    listed = by_name(name, data.models)
    if listed is not None:
        return data.billions(listed)
    if found := _ACTIVE.search(name):
        return float(found[1])
    if found := _SIZE.search(name):
        return float(found[1]) / (1000 if found[2] == "m" else 1)
    return data.billions(data.unknown)


def watt_hours(joules: float) -> str:
    """An amount for people, who think in kilowatt-hours."""
    amount = joules / _WATT_HOUR
    for unit, size in (("mWh", 1e-3), ("Wh", 1.0)):
        if amount < _THOUSAND * size:
            return f"{_digits(amount / size)} {unit}"
    return f"{_digits(amount / _THOUSAND)} kWh"


def _digits(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 or not number else f"{number:.3g}"  # noqa: PLR2004

"""How a call travels: both stacks of layers, in order, with the reason for each place."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx

from gateway.catalogue import Catalogue, Entry
from gateway.providers.accounts import accounts_of
from gateway.providers.openai import Account, OpenAIUpstream
from gateway.settings import Model, Settings, Target
from gateway.settings.routes import ASKED
from policies.observe import ObserveAttempts, ObserveCalls
from policies.ports import Clock, Meter
from policies.service import Service


@dataclass(frozen=True, slots=True)
class Parts:
    """What the layers are given: time, chance, ears, and the way out."""

    clock: Clock
    wall_time: Callable[[], float]
    rng: random.Random
    meter: Meter
    transport: httpx.AsyncBaseTransport


def build_catalogue(settings: Settings, local_urls: Mapping[str, str], parts: Parts) -> Catalogue:
    """Assemble every configured model. ``local_urls`` tells where the bundled model servers listen."""
    accounts = accounts_of(settings.providers, local_urls)
    entries = []
    for name, model in settings.models.items():
        service = _per_request(_upstream(accounts, model.route[0][0], model, parts), parts)
        entries.append(Entry(name, service, model.timeouts.total))
    return Catalogue(entries)


def _per_request(service: Service, parts: Parts) -> Service:
    return ObserveCalls(service, clock=parts.clock, meter=parts.meter)


def _upstream(accounts: dict[str, list[Account]], target: Target, model: Model, parts: Parts) -> Service:
    asked = None if target.model == ASKED else target.model
    account = accounts[target.provider][0]
    upstream = OpenAIUpstream(
        account,
        asked,
        parts.transport,
        connect_timeout=model.timeouts.connect,
        wall_time=parts.wall_time,
    )
    return ObserveAttempts(upstream, upstream=account.name, model=asked, clock=parts.clock, meter=parts.meter)

"""What the live page shows: ``WorkerView`` is what one worker sees, ``GatewayView`` all of them together."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from gateway.api.cache_view import CacheView
from gateway.dashboard.slots import Series
from gateway.upstreams import UpstreamReport


class AttemptView(BaseModel):
    """One upstream tried for a request."""

    upstream: str
    model: str
    outcome: str = Field(description="ok, pending, cancelled, lost (a hedge) or the name of the error.")
    duration: float


class RequestView(BaseModel):
    """A request that is over; times in seconds."""

    at: datetime
    id: str = Field(description="As in the access log.")
    tenant: str
    tier: str
    model: str
    outcome: str = Field(description="ok, cancelled or the name of the error.")
    duration: float
    first_token: float | None
    queued: float = Field(description="How long it waited for its turn.")
    cache: str | None = Field(description="What the cache did; null where the route has none.")
    attempts: list[AttemptView]
    energy: float | None = Field(
        description="In joules, of the answer; null where nobody counted its tokens."
    )
    measured: bool = Field(description="Whether a counter measured the energy; else it is an estimate.")


class WorkerView(BaseModel):
    """What one worker sees. Sums are by slots of time, see ``slots``."""

    worker: int
    at: float
    upstreams: list[UpstreamReport]
    running: dict[str, int]
    waiting: dict[str, int]
    calls: Series
    shed: Series
    refused: Series
    first_tokens: Series
    first_token_seconds: Series
    requests: list[RequestView]


class UpstreamView(BaseModel):
    """One upstream as all workers see it; times in seconds."""

    name: str = Field(description="account/model, as the orders of /admin/upstreams take it.")
    upstream: str = Field(description="The provider's account.")
    model: str
    state: str = Field(description="The worst that a worker sees; see /admin/upstreams.")
    states: dict[str, int] = Field(description="How many workers see it in which state.")
    why: str = Field(description="What brought it into this state.")
    next_probe: float | None
    limit: int = Field(description="Concurrency that it is found to allow, of all workers.")
    inflight: int
    waiting: int
    held_off: float = Field(description="How long it still wants to hear nothing from us.")
    error_ratio: float = Field(description="The worst of the workers'.")
    status_page: str | None
    first_token: float | None = Field(description="Mean of the last minute; null without a call.")
    first_tokens: list[float | None] = Field(description="Means of five seconds each, the newest last.")


class TierView(BaseModel):
    """A tier and its queue."""

    name: str
    weight: float
    share: float = Field(description="Its own part of the room.")
    limits: dict[str, Any]
    max_wait: float
    running: int
    waiting: int
    shed: int = Field(description="Calls told to come back later, in the last five minutes.")
    refused: int = Field(description="Calls over a limit, in the last five minutes.")


class TrafficView(BaseModel):
    """Requests that ended, in slots of ``seconds``, the newest last."""

    seconds: int
    until: float = Field(description="When the newest slot ends, in seconds since the epoch.")
    answered: list[int]
    failed: list[int]
    refused: list[int]


class SpendView(BaseModel):
    """What a model's requests of today used, as in the ledger; the day is UTC's."""

    model: str
    requests: int
    cache_hits: int
    input: int
    output: int
    cost: float = Field(description="In US dollars, as far as prices are known.")
    unpriced: int = Field(description="Requests whose cost isn't known.")
    energy: float = Field(description="In joules.")
    energy_measured: float = Field(description="The part that a counter measured; the rest is an estimate.")


class GatewayView(BaseModel):
    """All workers of a gateway, now. ``workers`` is how many of ``of`` have been heard."""

    at: datetime
    workers: int
    of: int
    upstreams: list[UpstreamView]
    tiers: list[TierView]
    traffic: TrafficView
    cache: CacheView | None = Field(description="null until it is read, and where no answer is cached.")
    today: list[SpendView] | None = Field(description="null while the database doesn't answer.")
    requests: list[RequestView] = Field(description="The newest first.")

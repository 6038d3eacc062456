"""What /admin/usage shows: the sums of some requests, and single ones."""

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from gateway import energy
from gateway.api.admin import csv
from gateway.api.admin.names import moment
from gateway.prices import UNIT

COLUMNS = {
    "key": "key_id",
    "request_id": "request",
    "input_tokens": "input",
    "cached_input_tokens": "cached_input",
    "output_tokens": "output",
    "reasoning_tokens": "reasoning",
}
"""What the API calls otherwise than the database."""

_JOULES = frozenset({"energy", "energy_measured", "energy_wasted"})


class Sums(BaseModel):
    """What some requests came to. Tokens out of a cache or for reasoning are parts of the others."""

    requests: int
    refused: int = Field(description="Turned away: over a limit, or not well-formed.")
    failed: int
    cancelled: int = Field(description="The client left.")
    cache_hits: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost: float | None = Field(description="In dollars, as far as prices are known; null if none is.")
    unpriced: int = Field(description="Requests without a known price, which aren't in the cost.")
    estimated: int = Field(description="Requests whose tokens nobody counted, so that they are estimated.")
    energy: float = Field(description="In joules, without that of requests from before it was kept.")
    energy_measured: float = Field(description="The part that a counter measured; the rest is an estimate.")
    energy_wasted: float = Field(description="The part of attempts that gave no answer.")
    flops: float = Field(description="Floating-point operations, where the upstream tells them.")


class UsageRow(Sums):
    """The sums of one group."""

    day: date | None = Field(default=None, description="In UTC.")
    tenant: str | None = None
    key: str | None = Field(default=None, description="The key's id.")
    tier: str | None = None
    model: str | None = Field(default=None, description="What was asked for.")
    upstream: str | None = Field(default=None, description="The account that answered; empty for nobody.")
    served_model: str | None = Field(default=None, description="The model that answered.")


class UsageView(BaseModel):
    """The usage of some days, in groups and in all."""

    start: date = Field(serialization_alias="from", description="The first day, in UTC.")
    end: date = Field(serialization_alias="to", description="The last day, included.")
    by: list[str]
    rows: list[UsageRow]
    totals: Sums


class RequestRow(BaseModel):
    """One finished request, or an attempt that was billed beside its answer."""

    id: str = Field(description="The row's own, never there twice.")
    at: datetime = Field(description="When it ended.")
    request_id: str = Field(description="As in the access log; a client may have chosen it.")
    kind: Literal["answer", "extra"] = Field(
        description="extra: billed beside the answer, as a hedge's loser."
    )
    requests: int = Field(description="1; more for alike refusals of one moment, 0 for an extra.")
    tenant: str
    key: str
    tier: str
    model: str = Field(description="What was asked for; empty where that couldn't be read.")
    upstream: str = Field(description="The account that answered; empty for nobody.")
    served_model: str
    operation: str
    outcome: str = Field(description="ok, cancelled, or what went wrong.")
    status: int
    stream: bool
    cache_hit: bool
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    estimated: bool = Field(description="Whether nobody counted the tokens.")
    cost: float | None = Field(description="In dollars; null if the price isn't known.")
    energy: float | None = Field(
        description="In joules, attempts without an answer included; null if unknown."
    )
    energy_wasted: float = Field(description="The part of attempts that gave no answer.")
    measured: bool = Field(description="Whether a counter measured the energy; else it is an estimate.")
    flops: float | None = Field(description="Floating-point operations; null where the upstream tells none.")
    duration: float = Field(description="In seconds.")
    first_token: float | None = Field(description="Seconds to the first content; null if none came.")


SUMS = tuple(Sums.model_fields)
_SUMMED = {
    "requests": 1200,
    "refused": 10,
    "failed": 2,
    "cancelled": 5,
    "cache_hits": 120,
    "input_tokens": 800000,
    "cached_input_tokens": 200000,
    "output_tokens": 240000,
    "reasoning_tokens": 0,
    "cost": 3.75,
    "unpriced": 0,
    "estimated": 5,
    "energy": 512000.5,
    "energy_measured": 0.0,
    "energy_wasted": 1200.25,
    "flops": 0.0,
}
_EXAMPLE = {
    "from": "2026-11-01",
    "to": "2026-11-30",
    "by": ["model"],
    "rows": [{"model": "chat", **_SUMMED}],
    "totals": _SUMMED,
}
SHOWN: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"application/json": {"example": _EXAMPLE}, csv.MEDIA_TYPE: {"schema": {"type": "string"}}}
    }
}
LISTED: dict[int | str, dict[str, Any]] = {200: {"content": {csv.MEDIA_TYPE: {"schema": {"type": "string"}}}}}


def shown(row: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """A row of the ledger, or sums of it, as JSON."""
    return {field: _plain(field, row) for field in fields}


def listed(row: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    """The same for CSV, with the cost to its last digit."""
    cells = shown(row, fields)
    if cells["cost"] is not None:
        whole, part = divmod(row["cost"], UNIT)
        cells["cost"] = f"{whole}.{part:09}"
    return cells


def _plain(field: str, row: Mapping[str, Any]) -> Any:
    value = row[COLUMNS.get(field, field)]
    if field == "cost":
        unknown = value is None or (value == 0 and row.get("unpriced"))
        return None if unknown else value / UNIT
    if field in _JOULES:
        return None if value is None else value / energy.UNIT
    if field == "at":
        return moment(value).isoformat()
    if isinstance(value, float):
        return round(value, 6)
    return value.isoformat() if isinstance(value, date) else value

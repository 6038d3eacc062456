"""What the cache holds and did, as the admin API and the live page show it."""

from pydantic import BaseModel, Field

from gateway.metrics.caches import CacheTotals


class TierView(BaseModel):
    """How full a tier is: `memory` of all workers, or `disk`."""

    tier: str
    entries: int
    bytes: int


class ModelView(BaseModel):
    """What a model's cache did since the gateway was started."""

    model: str = Field(description="The configured name or glob.")
    hit: int
    stale: int
    semantic: int
    miss: int
    bypass: int = Field(description="Calls that don't take part.")
    hit_rate: float = Field(description="Of the calls that take part, how many the cache answered.")


class CacheView(BaseModel):
    """The cache of all workers."""

    tiers: list[TierView]
    models: list[ModelView]
    evicted: dict[str, int] = Field(description="Answers that had to go, by why.")
    dropped: dict[str, int] = Field(description="Answers not taken or not given, by why.")


def cache_view(found: CacheTotals) -> CacheView:
    """What all workers counted."""
    return CacheView(
        tiers=[
            TierView(tier=tier, entries=size.entries, bytes=size.bytes) for tier, size in found.sizes.items()
        ],
        models=[
            ModelView(model=model, hit_rate=found.hit_rate(model), **states)
            for model, states in sorted(found.states.items())
        ],
        evicted=found.evicted,
        dropped=found.dropped,
    )

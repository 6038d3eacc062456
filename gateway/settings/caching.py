"""What is cached, for how long, and in how much room."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from gateway.settings.base import Section, Text, Whole
from gateway.settings.semantic import BUNDLED, OFF, Semantic, switched
from gateway.settings.store import MEMORY, StoreUrl
from gateway.settings.units import Duration, Size, size
from policies.cache.reuse import CacheOptions

_PACE = 0.01
"""Seconds between the words of a paced replay."""


def _room(value: Any) -> int:
    return 0 if value == OFF else size(value)


def _server(url: SecretStr) -> SecretStr:
    if url.get_secret_value() == MEMORY:
        raise ValueError("must be the URL of a Redis; leave it out for none")
    return url


class Cache(Section):
    """The room that answers may take: sizes in bytes, `memory` that of each worker, `disk` 0 for none.

    `redis` None has answers shared through the Redis of `store`, if that names one. `embeddings` makes
    vectors of prompts for models with a semantic cache, and each worker keeps those of `prompts` of them.
    A call waits for its vector for `embeddings_timeout` seconds at most.
    """

    memory: Size = Field(default=256 * 2**20, gt=0)
    policy: Literal["w-tinylfu", "lru", "lfu"] = "w-tinylfu"
    disk: Annotated[int, BeforeValidator(_room)] = 2**30
    path: Text = "tidegate-cache.db"
    redis: Annotated[StoreUrl, AfterValidator(_server)] | None = None
    max_entry: Size = Field(default=2**20, gt=0)
    embeddings: Text = BUNDLED
    embeddings_timeout: Duration = Field(default=0.5, gt=0)
    prompts: Whole = Field(default=10000, ge=1)


class ModelCache(Section):
    """How long answers of a model are given again, in seconds, to whom, and how."""

    exact: Duration = Field(default=3600.0, gt=0)
    stale_while_revalidate: Duration = 600.0
    stale_if_error: Duration = 86400.0
    when: Literal["repeatable", "always"] = "repeatable"
    share: Literal["tenant", "all"] = "tenant"
    replay: Literal["at-once", "paced"] = "at-once"
    semantic: Annotated[Semantic | None, BeforeValidator(switched)] = None

    def options(self) -> CacheOptions:
        """As the cache's layers take it."""
        return CacheOptions(
            exact=self.exact,
            stale_while_revalidate=self.stale_while_revalidate,
            stale_if_error=self.stale_if_error,
            always=self.when == "always",
            shared=self.share == "all",
            pace=_PACE if self.replay == "paced" else 0.0,
        )

"""The semantic cache of one worker: one index and one embedder for all routes that have it switched on.

Each worker has its own index and its own curves. Answers lie in the tiers that all share, found by key.
"""

from collections import defaultdict
from collections.abc import Callable

from gateway.cache.semantic.embedder import Batched, BatchOptions
from gateway.cache.semantic.index import PromptIndex
from gateway.cache.semantic.lookup import Library, SemanticLookup
from gateway.cache.semantic.models import LocalModel, UpstreamModel
from gateway.parts import Parts
from gateway.settings.caching import Cache
from gateway.settings.routes import Target
from gateway.settings.semantic import BUNDLED
from policies.cache.answer import CachedAnswer
from policies.cache.exact import Spawn
from policies.cache.semantic_budget import RiskBudget
from policies.cache.semantic_fit import Pool, SemanticOptions
from policies.ports import CacheStore, Meter
from policies.service import Service


class Semantics:
    """``target`` names the upstream's model that makes vectors; without one the bundled model does."""

    def __init__(self, settings: Cache, store: CacheStore, parts: Parts, spawn: Spawn, meter: Meter) -> None:
        self._parts = parts
        self._spawn = spawn
        self._meter = meter
        bundled = settings.embeddings == BUNDLED
        self.target = None if bundled else Target(*settings.embeddings.split("/", 1))
        self._model = (
            LocalModel() if self.target is None else UpstreamModel(self.target.model, parts.clock, meter)
        )
        self._index = PromptIndex(settings.prompts)
        batches = BatchOptions(settings.embeddings_timeout)
        embed = Batched(self._model, batches, clock=parts.clock, spawn=spawn)
        self._library = Library(self._index, embed, store)
        self._pools: defaultdict[str, Pool] = defaultdict(Pool)
        self._budgets: dict[tuple[str, SemanticOptions], RiskBudget] = {}

    def reach(self, service: Service) -> None:
        """Ask for embeddings this way from now on."""
        if isinstance(self._model, UpstreamModel):
            self._model.service = service

    def lookup(
        self, options: SemanticOptions, space: str, fresh: Callable[[CachedAnswer], bool]
    ) -> SemanticLookup:
        """What a route looks answers up with. Routes to the same ``space`` learn together."""
        return SemanticLookup(
            options,
            self._library,
            space=space,
            pool=self._pools[space],
            budget=self._budgets.setdefault((space, options), RiskBudget(options)),
            fresh=fresh,
            rng=self._parts.rng,
            spawn=self._spawn,
            meter=self._meter,
        )

    def clear(self) -> None:
        """Forget all prompts."""
        self._index.clear()

    def __len__(self) -> int:
        return len(self._index)

    def close(self) -> None:
        """Let go of the model."""
        if isinstance(self._model, LocalModel):
            self._model.close()

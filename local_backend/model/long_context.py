"""Takes a model beyond its trained length: by YaRN, by dual chunk attention or by a sliding window."""

import math
from dataclasses import replace
from enum import StrEnum

import torch

from local_backend.errors import ConfigError
from local_backend.model.config import DeepseekConfig, DualChunk, RopeConfig, yarn_mscale

# ChunkLlama's choice: three quarters of the trained length, and the rest as the window between neighbours.
_CHUNK_SHARE = 0.75

SINKS = 64
"""First tokens that a sliding window keeps, a block of the engine's cache; the paper finds four enough."""


class Extension(StrEnum):
    """How positions beyond the trained length are reached."""

    NONE = "none"
    YARN = "yarn"
    DUAL_CHUNK = "dual-chunk"
    SLIDING = "sliding"


def extended(config: DeepseekConfig, extension: Extension, length: int) -> DeepseekConfig:
    """The config of a model that takes `length` positions; the same where it takes them anyway.

    Sliding, `length` is what the cache keeps of a text, which may itself be of any length.
    """
    trained = config.max_position_embeddings
    if extension is Extension.SLIDING:
        if length > trained:
            raise ConfigError(f"--window {length} exceeds the model's {trained} positions")
        return replace(config, sinks=SINKS)
    if length <= trained:
        return config
    if extension is Extension.NONE:
        raise ConfigError(
            f"--max-length {length} exceeds the model's {trained} positions; "
            "--extend yarn, dual-chunk or sliding reaches further, at some loss"
        )
    if extension is Extension.DUAL_CHUNK:
        chunk = int(trained * _CHUNK_SHARE)
        return replace(config, max_position_embeddings=length, dual_chunk=DualChunk(chunk, trained))
    rope = _yarn(config.rope, length / trained, trained, config.qk_rope_head_dim)
    return replace(config, max_position_embeddings=length, rope=rope)


def _yarn(rope: RopeConfig, factor: float, trained: int, dim: int) -> RopeConfig:
    """YaRN (arXiv 2309.00071) on top of whatever the model has."""
    if rope.rope_type == "yarn":
        return replace(rope, factor=rope.factor * factor)
    if rope.rope_type == "longrope":
        return _yarn_on_factors(rope, factor, trained, dim)
    return replace(
        rope,
        rope_type="yarn",
        factor=factor,
        original_max_position_embeddings=trained,
        mscale=1.0,
        mscale_all_dim=1.0,
    )


def _yarn_on_factors(rope: RopeConfig, factor: float, trained: int, dim: int) -> RopeConfig:
    """The same rule for frequencies given one by one: by how often each turns in the trained length."""
    base = rope.rope_theta ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    given = torch.tensor(rope.short_factor, dtype=torch.float64)
    turns = trained / (2 * math.pi * base * given)
    ramp = torch.log(rope.beta_fast / turns) / math.log(rope.beta_fast / rope.beta_slow)
    slowed = ramp.clamp(0, 1)
    factors = tuple((given / (slowed / factor + 1 - slowed)).tolist())
    attention = (rope.attention_factor or 1.0) * yarn_mscale(factor, 1.0)
    return replace(rope, short_factor=factors, long_factor=factors, attention_factor=attention)

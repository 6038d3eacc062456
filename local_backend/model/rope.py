"""Rotary position embedding (RoFormer, arXiv 2104.09864) with YaRN and LongRoPE frequencies.

Angles are computed in float32 whatever the model's dtype, because bfloat16 cannot tell positions apart.
"""

import math

import torch
from torch import Tensor, nn

from local_backend.model.config import RopeConfig, yarn_mscale


class RotaryEmbedding(nn.Module):
    """Tables of cosine and sine for every position, float32 [max_positions, dim / 2]."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: RopeConfig, dim: int, max_positions: int, device: torch.device) -> None:
        super().__init__()
        frequencies = inverse_frequencies(config, dim, max_positions).to(device)
        angles = torch.arange(max_positions, dtype=torch.float32, device=device)[:, None] * frequencies
        self._frequencies = frequencies
        self._scale = attention_scale(config)
        self.register_buffer("cos", angles.cos() * self._scale, persistent=False)
        self.register_buffer("sin", angles.sin() * self._scale, persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Positions [batch, tokens] -> cosine and sine, each [batch, tokens, dim / 2]."""
        return self.cos[positions], self.sin[positions]

    def endless(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """The same for positions of any size: beyond the tables, angles are computed in float64."""
        angles = positions[..., None].double() * self._frequencies.double()
        last = len(self.cos) - 1
        cos, sin = self(positions.clamp(max=last))
        is_far = positions[..., None] > last
        return (
            torch.where(is_far, angles.cos().float() * self._scale, cos),
            torch.where(is_far, angles.sin().float() * self._scale, sin),
        )


def rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """Rotate the pairs of the last dimension; x [..., dim], cos and sin broadcastable [..., dim / 2].

    Interleaved pairs come out with all first halves before all second halves. Queries and keys are permuted
    alike, so their products are the same, and it saves a shuffle.
    """
    wide = x.float()
    if interleaved:
        first, second = wide[..., 0::2], wide[..., 1::2]
    else:
        first, second = wide.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


def inverse_frequencies(config: RopeConfig, dim: int, max_positions: int) -> Tensor:
    """The angle that each pair turns a position, float32 [dim / 2]."""
    base = config.rope_theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    if config.rope_type == "yarn":
        return _yarn(config, base, dim)
    if config.rope_type == "longrope":
        is_long = max_positions > config.original_max_position_embeddings
        return 1.0 / (base * torch.tensor(config.long_factor if is_long else config.short_factor))
    return 1.0 / base


def attention_scale(config: RopeConfig) -> float:
    """The factor on cosine and sine."""
    if config.attention_factor is not None:
        return config.attention_factor
    if config.rope_type == "yarn":
        if config.mscale and config.mscale_all_dim:
            return yarn_mscale(config.factor, config.mscale) / yarn_mscale(
                config.factor, config.mscale_all_dim
            )
        return yarn_mscale(config.factor, 1.0)
    if config.rope_type == "longrope" and config.factor > 1.0:
        return math.sqrt(1 + math.log(config.factor) / math.log(config.original_max_position_embeddings))
    return 1.0


def _yarn(config: RopeConfig, base: Tensor, dim: int) -> Tensor:
    """Keep fast pairs, interpolate slow ones by `factor`, and ramp between them (YaRN, section 3.2)."""

    def pair_turning(rotations: float) -> float:
        periods = config.original_max_position_embeddings / (rotations * 2 * math.pi)
        return dim * math.log(periods) / (2 * math.log(config.rope_theta))

    low = max(math.floor(pair_turning(config.beta_fast)), 0)
    high = min(math.ceil(pair_turning(config.beta_slow)), dim - 1)
    ramp = (torch.arange(dim // 2, dtype=torch.float32) - low) / max(high - low, 0.001)
    interpolated = ramp.clamp(0, 1)
    return (interpolated / config.factor + (1 - interpolated)) / base

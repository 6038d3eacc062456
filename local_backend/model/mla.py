"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).

A token leaves one latent and one rotary key, shared by all heads. Two equivalent forms read them back:
un-absorbed, which expands the latents to per-head keys and values and suits many queries at once (prefill),
and absorbed, which moves the expansion to the query and the output and so reads the small latents directly
(decode).
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from local_backend.model.config import DeepseekConfig
from local_backend.model.linear import Projection
from local_backend.model.rope import rotate

# DeepSeek's and transformers' code use this for the two inner norms whatever rms_norm_eps says.
_INNER_NORM_EPS = 1e-6


class LatentView(Protocol):
    """The cached latents of a batch of sequences, one row a sequence."""

    def write(self, layer: int, positions: Tensor, latents: Tensor) -> None:
        """Store latents [batch, tokens, latent_dim] at positions [batch, tokens]."""

    def read(self, layer: int, length: int) -> Tensor:
        """The first `length` latents of every sequence, [batch, length, latent_dim]."""


@dataclass(frozen=True)
class Span:
    """Where the tokens of a forward pass stand; the same for every layer.

    positions: int64 [batch, tokens]. rotary: their cosine and sine, [batch, tokens, qk_rope_head_dim / 2]
    each. visible: bool [batch, tokens, length], which of the first `length` cached positions a query may see.
    absorbed: which of the two forms attention takes.
    """

    positions: Tensor
    rotary: tuple[Tensor, Tensor]
    visible: Tensor
    cache: LatentView
    absorbed: bool


class MultiHeadLatentAttention(nn.Module):
    """One layer's attention; it caches [latent | rotary key] for a token, normed and rotated."""

    def __init__(self, config: DeepseekConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_heads = config.num_attention_heads
        self.kv_lora_rank = config.kv_lora_rank
        self.qk_nope_head_dim = config.qk_nope_head_dim
        self.qk_rope_head_dim = config.qk_rope_head_dim
        self.v_head_dim = config.v_head_dim
        self.rope_interleave = config.rope_interleave
        self.softmax_scale = config.softmax_scale
        hidden, bias = config.hidden_size, config.attention_bias
        query_dim = self.num_heads * config.qk_head_dim
        self.q_a_proj: Projection | None = None
        if config.q_lora_rank is None:
            self.q_proj = Projection(hidden, query_dim, bias=False)
        else:
            self.q_a_proj = Projection(hidden, config.q_lora_rank, bias=bias)
            self.q_a_layernorm = nn.RMSNorm(config.q_lora_rank, eps=_INNER_NORM_EPS)
            self.q_b_proj = Projection(config.q_lora_rank, query_dim, bias=False)
        self.kv_a_proj_with_mqa = Projection(hidden, config.latent_dim, bias=bias)
        self.kv_a_layernorm = nn.RMSNorm(self.kv_lora_rank, eps=_INNER_NORM_EPS)
        expanded = self.num_heads * (self.qk_nope_head_dim + self.v_head_dim)
        self.kv_b_proj = nn.Linear(self.kv_lora_rank, expanded, bias=False)
        self.o_proj = Projection(self.num_heads * self.v_head_dim, hidden, bias=bias)

    def forward(self, x: Tensor, span: Span) -> Tensor:
        """Attend from x [batch, tokens, hidden] to all that is cached up to it, itself included."""
        batch, tokens, _ = x.shape
        cos, sin = span.rotary
        query = self._query(x).view(batch, tokens, self.num_heads, -1)
        q_nope, q_rope = torch.split(query, [self.qk_nope_head_dim, self.qk_rope_head_dim], dim=-1)
        q_rope = rotate(q_rope, cos[:, :, None], sin[:, :, None], self.rope_interleave)

        compressed, k_rope = self.kv_a_proj_with_mqa(x).split(
            [self.kv_lora_rank, self.qk_rope_head_dim], dim=-1
        )
        k_rope = rotate(k_rope, cos, sin, self.rope_interleave)
        span.cache.write(
            self.layer, span.positions, torch.cat([self.kv_a_layernorm(compressed), k_rope], dim=-1)
        )

        latents = span.cache.read(self.layer, span.visible.shape[-1])
        attend = self._attend_absorbed if span.absorbed else self._attend_expanded
        output: Tensor = self.o_proj(attend(q_nope, q_rope, latents, span.visible))
        return output

    def _query(self, x: Tensor) -> Tensor:
        query: Tensor
        if self.q_a_proj is None:
            query = self.q_proj(x)
        else:
            query = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))
        return query

    def _attend_expanded(self, q_nope: Tensor, q_rope: Tensor, latents: Tensor, visible: Tensor) -> Tensor:
        """Queries [batch, tokens, heads, *], latents [batch, length, *] -> [batch, tokens, heads * v]."""
        compressed, k_rope = torch.split(latents, [self.kv_lora_rank, self.qk_rope_head_dim], dim=-1)
        expanded = torch.unflatten(self.kv_b_proj(compressed), -1, (self.num_heads, -1))
        k_nope, value = torch.split(expanded, [self.qk_nope_head_dim, self.v_head_dim], dim=-1)
        shared = k_rope[:, :, None].expand(-1, -1, self.num_heads, -1)
        output = functional.scaled_dot_product_attention(
            torch.cat([q_nope, q_rope], dim=-1).transpose(1, 2),
            torch.cat([k_nope, shared], dim=-1).transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=visible[:, None],
            scale=self.softmax_scale,
        )
        return output.transpose(1, 2).flatten(2)

    def _attend_absorbed(self, q_nope: Tensor, q_rope: Tensor, latents: Tensor, visible: Tensor) -> Tensor:
        """The same result from the latents themselves: W_UK goes into the query, W_UV comes after the sum."""
        batch, tokens = q_nope.shape[:2]
        up = self.kv_b_proj.weight.view(self.num_heads, -1, self.kv_lora_rank)
        w_uk, w_uv = torch.split(up, [self.qk_nope_head_dim, self.v_head_dim], dim=1)
        compressed, k_rope = torch.split(latents, [self.kv_lora_rank, self.qk_rope_head_dim], dim=-1)

        scores = torch.bmm(q_rope.flatten(1, 2), k_rope.transpose(1, 2))
        if self.qk_nope_head_dim:
            q_latent = torch.einsum("bthn,hnr->bthr", q_nope, w_uk)
            scores = scores + torch.bmm(q_latent.flatten(1, 2), compressed.transpose(1, 2))
        scores = scores.view(batch, tokens, self.num_heads, -1).float() * self.softmax_scale
        scores = scores.masked_fill(~visible[:, :, None], float("-inf"))
        weights = scores.softmax(dim=-1).to(latents.dtype).flatten(1, 2)
        attended = torch.bmm(weights, compressed).view(batch * tokens, self.num_heads, -1)
        output = torch.bmm(attended.transpose(0, 1), w_uv.transpose(1, 2))
        return output.transpose(0, 1).reshape(batch, tokens, -1)

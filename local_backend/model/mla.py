"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).

A token leaves one latent and one rotary key, shared by all heads. Two equivalent forms read them back:
un-absorbed, which expands the latents to per-head keys and values and suits many queries at once (prefill),
and absorbed, which moves the expansion to the query and the output and so reads the small latents directly
(decode).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from local_backend.kernels import mla_decode
from local_backend.kernels.mla_decode import Pages
from local_backend.model.config import DeepseekConfig
from local_backend.model.distances import Distances, RotatedQueries
from local_backend.model.linear import Projection
from local_backend.model.rope import rotate

# DeepSeek's and transformers' code use this for the two inner norms whatever rms_norm_eps says.
_INNER_NORM_EPS = 1e-6


class LatentView(Protocol):
    """The cached latents that the rows of a forward pass belong to."""

    lengths: Sequence[int]
    """How many positions each row may read: all up to its last."""

    evicted: Sequence[int]
    """How many tokens of each row's text are gone, none of the first ones among them."""

    def write(self, layer: int, latents: Tensor) -> None:
        """Store latents [rows, tokens, latent_dim] of the positions that this pass computes."""

    def read(self, layer: int, row: int) -> Tensor:
        """The latents of a row up to the last of its positions, [length, latent_dim]."""

    def pages(self, layer: int) -> Pages | None:
        """All rows as a paged kernel reads them, where the device has one."""


@dataclass(frozen=True)
class Span:
    """Where the tokens of a forward pass stand; the same for every layer.

    rotary: cosine and sine of the positions, [rows, tokens, qk_rope_head_dim / 2] each. visible: for each row
    bool [tokens, length], which cached positions a query may see; None where there is a single query, which
    sees them all. absorbed: which of the two forms attention takes, None for the cheaper. distances: set
    where queries are rotated otherwise than their own keys for a part of the cache.
    """

    rotary: tuple[Tensor, Tensor]
    visible: Sequence[Tensor | None]
    cache: LatentView
    absorbed: bool | None
    distances: Distances | None = None


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
        """Attend from x [rows, tokens, hidden] to all that is cached up to it, itself included.

        Every row is computed on its own, with products whose shapes are its own, so that the result doesn't
        depend, not even by rounding, on what else is in the batch.
        """
        rows, tokens, _ = x.shape
        cos, sin = span.rotary
        query = self._query(x).view(rows, tokens, self.num_heads, -1)
        q_nope, q_rope = torch.split(query, [self.qk_nope_head_dim, self.qk_rope_head_dim], dim=-1)
        rotated = rotate(q_rope, cos[:, :, None], sin[:, :, None], self.rope_interleave)

        compressed, k_rope = self.kv_a_proj_with_mqa(x).split(
            [self.kv_lora_rank, self.qk_rope_head_dim], dim=-1
        )
        k_rope = rotate(k_rope, cos, sin, self.rope_interleave)
        span.cache.write(self.layer, torch.cat([self.kv_a_layernorm(compressed), k_rope], dim=-1))

        pages = span.cache.pages(self.layer) if tokens == 1 and span.distances is None else None
        if pages is not None:
            attended = self._attend_paged(q_nope[:, 0], rotated[:, 0], pages)[:, None]
        else:
            each = [self._attend(q_nope[row], q_rope[row], rotated[row], span, row) for row in range(rows)]
            attended = torch.stack(each)
        output: Tensor = self.o_proj(attended)
        return output

    def _attend_paged(self, q_nope: Tensor, q_rope: Tensor, pages: Pages) -> Tensor:
        """The absorbed form for one query a row, [rows, heads, *], by one kernel for all rows."""
        w_uk, w_uv = self._up_projections()
        query = torch.cat([torch.einsum("thn,hnr->thr", q_nope, w_uk), q_rope], dim=-1)
        attended = mla_decode.decode(query, pages, self.kv_lora_rank, self.softmax_scale)
        return torch.einsum("thr,hvr->thv", attended, w_uv).flatten(1)

    def _attend(self, q_nope: Tensor, q_rope: Tensor, rotated: Tensor, span: Span, row: int) -> Tensor:
        """One row's queries [tokens, heads, *], before and after rotation, -> [tokens, heads * v]."""
        latents, visible = span.cache.read(self.layer, row), span.visible[row]
        if span.distances is not None:
            queries = span.distances.queries(q_rope, rotated, row, self.rope_interleave)
            if queries is not None:
                return self._attend_distances(q_nope, queries, latents, visible)
        absorbed = span.absorbed
        if absorbed is None:
            absorbed = self._prefers_absorbed(len(q_nope), len(latents))
        attend = self._attend_absorbed if absorbed else self._attend_expanded
        return attend(q_nope, rotated, latents, visible)

    def _prefers_absorbed(self, tokens: int, length: int) -> bool:
        """Whether absorbed takes fewer products: never where a prompt starts, as all is expanded once."""
        if tokens in (1, length):
            return tokens == 1
        value, nope, rope = self.v_head_dim, self.qk_nope_head_dim, self.qk_rope_head_dim
        absorbed = self.kv_lora_rank * (2 if nope else 1) + rope
        return tokens * (absorbed - nope - rope - value) < self.kv_lora_rank * (nope + value)

    def _query(self, x: Tensor) -> Tensor:
        query: Tensor
        if self.q_a_proj is None:
            query = self.q_proj(x)
        else:
            query = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))
        return query

    def _attend_expanded(
        self, q_nope: Tensor, q_rope: Tensor, latents: Tensor, visible: Tensor | None
    ) -> Tensor:
        """Queries [tokens, heads, *], latents [length, *] -> [tokens, heads * v]."""
        compressed, k_rope = torch.split(latents, [self.kv_lora_rank, self.qk_rope_head_dim], dim=-1)
        expanded = torch.unflatten(self.kv_b_proj(compressed), -1, (self.num_heads, -1))
        k_nope, value = torch.split(expanded, [self.qk_nope_head_dim, self.v_head_dim], dim=-1)
        shared = k_rope[:, None].expand(-1, self.num_heads, -1)
        output = functional.scaled_dot_product_attention(
            torch.cat([q_nope, q_rope], dim=-1).transpose(0, 1)[None],
            torch.cat([k_nope, shared], dim=-1).transpose(0, 1)[None],
            value.transpose(0, 1)[None],
            attn_mask=visible,
            scale=self.softmax_scale,
        )
        return output[0].transpose(0, 1).flatten(1)

    def _attend_absorbed(
        self, q_nope: Tensor, q_rope: Tensor, latents: Tensor, visible: Tensor | None
    ) -> Tensor:
        """The same result from the latents themselves: W_UK goes into the query, W_UV comes after the sum."""
        tokens = q_rope.shape[0]
        compressed = latents[:, : self.kv_lora_rank]
        if self.qk_nope_head_dim:
            q_latent = torch.einsum("thn,hnr->thr", q_nope, self._up_projections()[0])
            query = torch.cat([q_latent, q_rope], dim=-1)
            keys = latents
        else:
            query, keys = q_rope, latents[:, self.kv_lora_rank :]
        scores = (query.flatten(0, 1) @ keys.T).view(tokens, self.num_heads, -1)
        return self._weigh(scores, compressed, visible)

    def _attend_distances(
        self, q_nope: Tensor, q_rope: RotatedQueries, latents: Tensor, visible: Tensor | None
    ) -> Tensor:
        """The absorbed form with rotations of its own for parts of the cache; queries [tokens, heads, *]."""
        compressed = latents[:, : self.kv_lora_rank]
        scores = q_rope.scores(latents[:, self.kv_lora_rank :])
        if self.qk_nope_head_dim:
            q_latent = torch.einsum("thn,hnr->thr", q_nope, self._up_projections()[0])
            scores = scores + q_latent @ compressed.T
        return self._weigh(scores, compressed, visible)

    def _up_projections(self) -> tuple[Tensor, Tensor]:
        """W_UK and W_UV, [heads, *, kv_lora_rank]."""
        up = self.kv_b_proj.weight.view(self.num_heads, -1, self.kv_lora_rank)
        w_uk, w_uv = torch.split(up, [self.qk_nope_head_dim, self.v_head_dim], dim=1)
        return w_uk, w_uv

    def _weigh(self, scores: Tensor, compressed: Tensor, visible: Tensor | None) -> Tensor:
        """Sum the latents by scores [tokens, heads, length] and expand the sum -> [tokens, heads * v]."""
        tokens = len(scores)
        scores = scores.float() * self.softmax_scale
        if visible is not None:
            scores = scores.masked_fill_(~visible[:, None], float("-inf"))
        weights = scores.softmax(dim=-1).to(compressed.dtype).view(tokens * self.num_heads, -1)
        attended = (weights @ compressed).view(tokens, self.num_heads, -1)
        w_uv = self._up_projections()[1]
        output = torch.bmm(attended.transpose(0, 1), w_uv.transpose(1, 2))
        return output.transpose(0, 1).flatten(1)

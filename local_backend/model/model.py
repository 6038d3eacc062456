"""The whole decoder: embedding, layers of MLA and MoE, final norm and output matrix."""

import torch
from torch import Tensor, nn

from local_backend.model.config import DeepseekConfig
from local_backend.model.dual_chunk import ChunkRotary
from local_backend.model.mla import LatentView, MultiHeadLatentAttention, Span
from local_backend.model.rope import RotaryEmbedding
from local_backend.model.sliding import SlidRotary
from local_backend.parallel.group import ParallelGroup
from local_backend.parallel.layers import shared_config, shared_feed_forward


class DecoderLayer(nn.Module):
    """Pre-norm attention and FFN with residuals, or a process's share of them."""

    def __init__(self, config: DeepseekConfig, layer: int, group: ParallelGroup) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = MultiHeadLatentAttention(shared_config(config, group), layer)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = shared_feed_forward(config, layer, group)

    def forward(self, x: Tensor, span: Span) -> Tensor:
        """X [rows, tokens, hidden] -> the same shape."""
        x = x + self.self_attn(self.input_layernorm(x), span)
        output: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return output


class DeepseekV3(nn.Module):
    """A DeepSeek-V2 or V3 language model for inference; `max_length` bounds its positions in the cache."""

    def __init__(
        self,
        config: DeepseekConfig,
        max_length: int,
        device: torch.device,
        group: ParallelGroup = ParallelGroup(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self.config = config
        # Only the tables are computed here; weights are assigned by the loader, so nothing is initialised.
        with torch.device("meta"):
            self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
            self.layers = nn.ModuleList(
                DecoderLayer(config, index, group) for index in range(config.num_hidden_layers)
            )
            self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
            self.lm_head: nn.Module = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        farthest = min(max_length, config.dual_chunk.trained_length) if config.dual_chunk else max_length
        self.rotary = RotaryEmbedding(config.rope, config.qk_rope_head_dim, farthest, device)

    def forward(
        self, ids: Tensor, positions: Tensor, cache: LatentView, absorbed: bool | None = None
    ) -> Tensor:
        """Run tokens and cache their latents; everything before them must be cached already.

        ids, positions: int64 [rows, tokens], a row's positions in the cache without a gap. absorbed: which
        form of attention (both give the same result), None for the cheaper. Returns hidden states [rows,
        tokens, hidden_size], normed, ready for `logits`.
        """
        x = self.embed_tokens(ids)
        visible: list[Tensor | None] = [None] * len(ids)
        if ids.shape[1] > 1:
            visible = [
                torch.arange(length, device=ids.device) <= row[:, None]
                for row, length in zip(positions, cache.lengths, strict=True)
            ]
        span = self._span(positions, visible, cache, absorbed)
        for layer in self.layers:
            x = layer(x, span)
        output: Tensor = self.norm(x)
        return output

    def _span(
        self, positions: Tensor, visible: list[Tensor | None], cache: LatentView, absorbed: bool | None
    ) -> Span:
        if self.config.dual_chunk is not None:
            chunked = ChunkRotary.of(self.rotary, positions, self.config.dual_chunk)
            return Span(chunked.keys, visible, cache, absorbed, chunked)
        if not any(cache.evicted):
            return Span(self.rotary(positions), visible, cache, absorbed)
        evicted = torch.tensor(cache.evicted, device=positions.device)
        rotary = self.rotary.endless(positions + evicted[:, None])
        slid = SlidRotary(self.config.sinks, cache.evicted, self.rotary(positions))
        return Span(rotary, visible, cache, absorbed, slid)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden [.., hidden_size] -> float32 [.., vocab_size]."""
        # As rows: torch multiplies a slice of a batch with a fresh copy of the whole matrix.
        rows: Tensor = self.lm_head(hidden.reshape(-1, hidden.shape[-1])).float()
        return rows.view(*hidden.shape[:-1], rows.shape[-1])

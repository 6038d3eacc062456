"""Bytes that one generated token moves: the weights it reads, the cache it reads and writes.

At batch 1 decoding is bound by them, not by arithmetic. The baselines of the cache are those of DeepSeek-V2
(arXiv 2405.04434, table 1): multi-head attention of the same width, and grouped-query attention.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from local_backend.engine.latents import LatentFormat
from local_backend.kernels.cpu_head import CpuHead
from local_backend.kernels.cpu_int4 import CpuProjection
from local_backend.model.config import DeepseekConfig
from local_backend.model.model import DeepseekV3
from local_backend.model.moe import Experts

_BFLOAT16_BYTES = 2
# Of a model that does not say what it came from: the groups that DeepSeek-V2's paper compares with.
_USUAL_GROUPS = 8


@dataclass(frozen=True)
class Traffic:
    """Bytes of one token at batch 1."""

    weights: int
    cache_read: int
    cache_written: int

    @property
    def total(self) -> int:
        return self.weights + self.cache_read + self.cache_written


def decode_traffic(model: DeepseekV3, form: LatentFormat, context: int) -> Traffic:
    """A generated token that attends to `context` positions."""
    config = model.config
    share = config.num_experts_per_tok / max(config.n_routed_experts, 1)
    layers = sum(_read(module, share) for module in model.layers)
    embedding_row = config.hidden_size * model.embed_tokens.weight.itemsize
    weights = embedding_row + layers + _read(model.norm, 1) + _head(model)
    token = form.block_bytes(config, 1)
    return Traffic(weights, token * context, token)


def _read(module: nn.Module, share: float) -> int:
    """What a token reads of `module`; of routed experts only their `share`."""
    if isinstance(module, CpuProjection) and module.packed is not None:
        return _bytes(module.packed, module.scales_and_zeros, module.bias)
    own = _bytes(*module.parameters(recurse=False), *module.buffers(recurse=False))
    below = sum(_read(child, share) for child in module.children())
    return int((own + below) * share) if isinstance(module, Experts) else own + below


def _head(model: DeepseekV3) -> int:
    if isinstance(model.lm_head, CpuHead):
        return model.config.vocab_size * model.config.hidden_size * _BFLOAT16_BYTES
    return _read(model.lm_head, 1)


def _bytes(*tensors: Tensor | None) -> int:
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


@dataclass(frozen=True)
class CacheBytes:
    """Bytes a token over all layers: latents as they are kept and in bfloat16, keys and values in bfloat16.

    `groups` is the number of KV heads of the grouped-query baseline.
    """

    latents: int
    latents_bfloat16: int
    multi_head: int
    grouped_query: int
    groups: int


def cache_bytes(config: DeepseekConfig, form: LatentFormat) -> CacheBytes:
    """The baseline has the KV heads of the dense model that this one came from, else eight."""
    groups = config.dense_key_value_heads
    if groups is None and not config.qk_nope_head_dim:
        groups = config.qk_rope_head_dim // config.v_head_dim
    groups = min(groups or _USUAL_GROUPS, config.num_attention_heads)
    head = 2 * config.v_head_dim * _BFLOAT16_BYTES * config.num_hidden_layers
    return CacheBytes(
        latents=form.block_bytes(config, 1),
        latents_bfloat16=config.num_hidden_layers * config.latent_dim * _BFLOAT16_BYTES,
        multi_head=head * config.num_attention_heads,
        grouped_query=head * groups,
        groups=groups,
    )

"""Floating-point operations a token, counted from the hyperparameters; a multiply-add is two.

Decoding takes MLA's absorbed form, a prompt the expanded one (model/mla.py). Norms, rotations, activations
and softmax are left out, as is usual: they are less than a hundredth.
"""

from dataclasses import dataclass
from functools import lru_cache

from local_backend.model.config import DeepseekConfig


@dataclass(frozen=True)
class Flops:
    """Of one token through all layers. `context` is what attention over the cache takes."""

    projections: int
    context: int
    feed_forward: int
    head: int

    @property
    def total(self) -> int:
        return self.projections + self.context + self.feed_forward + self.head


def decode_flops(config: DeepseekConfig, context: int) -> Flops:
    """A generated token that attends to `context` positions, itself included."""
    heads, rank, nope = config.num_attention_heads, config.kv_lora_rank, config.qk_nope_head_dim
    absorbing = 2 * heads * rank * (nope + config.v_head_dim)
    scored = (rank if nope else 0) + config.qk_rope_head_dim
    return Flops(
        projections=config.num_hidden_layers * (_projections(config) + absorbing),
        context=config.num_hidden_layers * 2 * heads * context * (scored + rank),
        feed_forward=_feed_forward(config),
        head=_head(config),
    )


def prompt_flops(config: DeepseekConfig, length: int) -> Flops:
    """A token of a prompt of `length` that runs in one pass; only the last token's logits are computed."""
    heads, value = config.num_attention_heads, config.v_head_dim
    expanding = 2 * config.kv_lora_rank * heads * (config.qk_nope_head_dim + value)
    return Flops(
        projections=config.num_hidden_layers * (_projections(config) + expanding),
        context=config.num_hidden_layers * 2 * heads * length * (config.qk_head_dim + value),
        feed_forward=_feed_forward(config),
        head=_head(config) // length,
    )


class Arithmetic:
    """Operations of what an engine runs: tokens of answers one by one, prompts by the chunk."""

    def __init__(self, config: DeepseekConfig) -> None:
        self._config = config
        self.token = lru_cache(maxsize=1 << 16)(self._token)

    def chunk(self, start: int, end: int, *, last: bool) -> int:
        """The positions [start, end) of a prompt; of the `last` chunk one token's logits are wanted."""
        head = _head(self._config)
        each = prompt_flops(self._config, end).total - head // end
        return (end - start) * each + (head if last else 0)

    def _token(self, context: int) -> int:
        """One token that attends to so many positions, itself included."""
        return decode_flops(self._config, context).total


def _projections(config: DeepseekConfig) -> int:
    """Of one layer: query, latent and output."""
    hidden, heads = config.hidden_size, config.num_attention_heads
    queries = heads * config.qk_head_dim
    lora = config.q_lora_rank
    query = hidden * queries if lora is None else lora * (hidden + queries)
    return 2 * (query + hidden * config.latent_dim + heads * config.v_head_dim * hidden)


def _feed_forward(config: DeepseekConfig) -> int:
    """Of all layers: gate, up and down of the neurons that run, and the router."""
    dense = min(config.first_k_dense_replace, config.num_hidden_layers)
    experts = config.n_shared_experts + config.num_experts_per_tok
    neurons = dense * config.intermediate_size
    sparse = config.num_hidden_layers - dense
    neurons += sparse * experts * config.moe_intermediate_size
    return 2 * config.hidden_size * (3 * neurons + sparse * config.n_routed_experts)


def _head(config: DeepseekConfig) -> int:
    return 2 * config.hidden_size * config.vocab_size

"""Shares the layers of a model over a group (Megatron-LM, arXiv 1909.08053; experts: GShard, 2006.16668).

Attention is cut by heads: the projections that make queries, keys and values by rows, o_proj by columns. A
dense FFN is cut by neurons, gate and up by rows, down by columns. Routed experts go whole to one process
each, neighbours together; the router, the latents and their cache are the same everywhere. After attention
and after the feed-forward part one all-reduce adds up the parts.
"""

from dataclasses import replace

from torch import Tensor, nn

from local_backend.model.config import DeepseekConfig
from local_backend.model.moe import Experts, FeedForward, FusedExperts, MixtureOfExperts
from local_backend.parallel.group import ParallelGroup


class AllReduced(nn.Module):
    """A module that computes this process's part of a sum."""

    def __init__(self, part: nn.Module, group: ParallelGroup) -> None:
        super().__init__()
        self.part = part
        self._group = group

    def forward(self, *arguments: object) -> Tensor:
        output: Tensor = self.part(*arguments)
        return self._group.all_reduce(output)


def shared_config(config: DeepseekConfig, group: ParallelGroup) -> DeepseekConfig:
    """The sizes of one process's share. Raises ConfigError when the model cannot be shared equally."""
    if config.n_routed_experts and not config.all_experts_active:
        group.share(config.n_routed_experts, "n_routed_experts")
    return replace(
        config,
        num_attention_heads=group.share(config.num_attention_heads, "num_attention_heads"),
        intermediate_size=group.share(config.intermediate_size, "intermediate_size"),
        moe_intermediate_size=group.share(config.moe_intermediate_size, "moe_intermediate_size"),
    )


def shared_feed_forward(config: DeepseekConfig, layer: int, group: ParallelGroup) -> nn.Module:
    """The feed-forward part of a layer, as much as one process holds."""
    part = shared_config(config, group)
    if layer < config.first_k_dense_replace:
        return FeedForward(config.hidden_size, part.intermediate_size)
    if config.all_experts_active:
        return FusedExperts(part)
    count = group.share(config.n_routed_experts, "n_routed_experts")
    return MixtureOfExperts(part, Experts(config, count, group.rank * count))

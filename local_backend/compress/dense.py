"""Reads the dense layers, grouped-query attention and one wide FFN, back out of a folder of profile `exact`.

The conversion (weights/convert.py) only moved their numbers, so nothing has to be fetched again.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from local_backend.errors import WeightsError
from local_backend.model.config import DeepseekConfig
from local_backend.weights.deepseek_io import Checkpoint


@dataclass(frozen=True)
class DenseLayer:
    """Float32 matrices: query [heads, head_dim, hidden], key and value [groups, head_dim, hidden].

    output [hidden, heads, head_dim], gate and up [neurons, hidden], down [hidden, neurons].
    """

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    gate: Tensor
    up: Tensor
    down: Tensor

    @property
    def groups(self) -> int:
        return len(self.key)

    @property
    def group_of_head(self) -> Tensor:
        return torch.arange(len(self.query)) // (len(self.query) // self.groups)


def group_count(config: DeepseekConfig) -> int:
    """The KV heads of the dense model. Raises WeightsError unless `config` is of profile `exact`."""
    if config.qk_nope_head_dim or not config.all_experts_active:
        raise WeightsError("only a model that was converted with the profile exact can be compressed")
    return config.qk_rope_head_dim // config.v_head_dim


def read_dense(checkpoint: Checkpoint, config: DeepseekConfig, layer: int) -> DenseLayer:
    """Undo the conversion of one layer."""
    groups, head_dim, heads = group_count(config), config.v_head_dim, config.num_attention_heads
    prefix = f"model.layers.{layer}."
    latent = checkpoint[f"{prefix}self_attn.kv_a_proj_with_mqa.weight"].float()
    value = latent[: groups * head_dim].view(groups, head_dim, -1)
    key = latent[config.kv_lora_rank :].view(groups, head_dim, -1)
    spread = checkpoint[f"{prefix}self_attn.q_proj.weight"].float().view(heads, groups, head_dim, -1)
    group_of_head = torch.arange(heads) // (heads // groups)
    query = spread[torch.arange(heads), group_of_head] / math.sqrt(groups)
    output = checkpoint[f"{prefix}self_attn.o_proj.weight"].float().view(-1, heads, head_dim)
    experts = [f"{prefix}mlp.experts.{expert}." for expert in range(config.n_routed_experts)]
    sources = [f"{prefix}mlp.shared_experts.", *experts]

    def joined(name: str, dim: int) -> Tensor:
        return torch.cat([checkpoint[f"{source}{name}.weight"].float() for source in sources], dim)

    return DenseLayer(
        query, key, value, output, joined("gate_proj", 0), joined("up_proj", 0), joined("down_proj", 1)
    )

"""A smaller model as DeepSeek-V3 tensors: the dense layers rearranged by a plan that calibration made.

The plan of a layer is small beside its weights and, with the folder of profile `exact`, says all: a delta
carries it, so that no other machine has to repeat the calibration to the last bit.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from local_backend.compress.activations import Activations
from local_backend.compress.dense import DenseLayer, group_count, read_dense
from local_backend.compress.experts import ExpertPlan, plan_experts
from local_backend.compress.latent import Pair, choose_pairs, compressed, pair_basis, rotary_queries
from local_backend.model.config import DeepseekConfig
from local_backend.model.rope import inverse_frequencies
from local_backend.weights.deepseek_io import Checkpoint

# As in weights/convert.py: a constant coordinate makes DeepSeek's norm of the latent a fixed factor.
_LATENT_NORM_WEIGHT = 512.0


@dataclass(frozen=True)
class Shape:
    """rope_pairs keep their rotation; rank is that of the latent, its constant included.

    top_k of the routed experts run, all where it is None.
    """

    rope_pairs: int
    rank: int
    top_k: int | None = None


@dataclass(frozen=True)
class LayerPlan:
    """mix is of PairBasis; kv_a [rank - 1 + rotary, hidden], kv_b [heads, nope + value, rank - 1]."""

    mix: Tensor
    kv_a: Tensor
    kv_b: Tensor
    experts: ExpertPlan | None


@dataclass(frozen=True)
class Plan:
    """What calibration decided."""

    shape: Shape
    pairs: list[Pair]
    layers: list[LayerPlan]


def make_plan(checkpoint: Checkpoint, config: DeepseekConfig, seen: Activations, shape: Shape) -> Plan:
    """Calibrate to what the layers of the exact model saw."""
    layers = range(config.num_hidden_layers)
    dense = [read_dense(checkpoint, config, layer) for layer in layers]
    bases = [pair_basis(*each) for each in zip(dense, seen.moments, strict=True)]
    pairs = choose_pairs(bases, dense_frequencies(config), shape.rope_pairs)
    plans = []
    for layer in layers:
        kv_a, kv_b = compressed(dense[layer], seen.moments[layer], bases[layer], pairs, shape.rank - 1)
        experts = None
        if shape.top_k is not None:
            shared = config.n_shared_experts * config.moe_intermediate_size
            experts = plan_experts(dense[layer], seen.samples[layer], shared, config.n_routed_experts)
        plans.append(LayerPlan(bases[layer].mix.to(torch.complex64), kv_a.float(), kv_b.float(), experts))
    return Plan(shape, pairs, plans)


def dense_frequencies(config: DeepseekConfig) -> Tensor:
    """The angle that each key pair of a dense head turns a position."""
    every = inverse_frequencies(config.rope, config.qk_rope_head_dim, config.max_position_embeddings)
    return every[: config.v_head_dim // 2]


def student_config(raw: Mapping[str, Any], config: DeepseekConfig, plan: Plan) -> dict[str, Any]:
    """config.json of the smaller model, from that of the exact one."""
    rope_dim = 2 * plan.shape.rope_pairs
    frequencies = dense_frequencies(config).double()
    wanted = torch.stack([frequencies[at] for at, _ in plan.pairs])
    standard = config.rope.rope_theta ** (-torch.arange(0, rope_dim, 2).double() / rope_dim)
    factors = (standard / wanted).tolist()
    rope = dict(raw["rope_parameters"]) | {"short_factor": factors, "long_factor": factors}
    return dict(raw) | {
        "qk_rope_head_dim": rope_dim,
        "qk_nope_head_dim": config.v_head_dim,
        "kv_lora_rank": plan.shape.rank,
        "num_experts_per_tok": plan.shape.top_k or config.n_routed_experts,
        "rope_parameters": rope,
        "dense_key_value_heads": group_count(config),
    }


def student_tensors(
    checkpoint: Checkpoint, config: DeepseekConfig, plan: Plan
) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the smaller model, float32."""
    for layer, each in enumerate(plan.layers):
        dense = read_dense(checkpoint, config, layer)
        prefix = f"model.layers.{layer}."
        for name, tensor in _attention(dense, each, plan):
            yield f"{prefix}self_attn.{name}", tensor.float().contiguous()
        if each.experts is not None:
            for name, tensor in _experts(dense, each.experts, config):
                yield f"{prefix}mlp.{name}", tensor.contiguous()
    replaced = (".self_attn.",) if plan.shape.top_k is None else (".self_attn.", ".mlp.")
    for name in checkpoint:
        if not any(part in name for part in replaced):
            yield name, checkpoint[name]


def _attention(dense: DenseLayer, layer: LayerPlan, plan: Plan) -> Iterator[tuple[str, Tensor]]:
    heads, head_dim, hidden = dense.query.shape
    rank, rope_dim = plan.shape.rank, 2 * plan.shape.rope_pairs
    rotary = rotary_queries(dense, layer.mix.to(torch.complex128), plan.pairs)
    # The softmax divides by the root of the wider head.
    widened = math.sqrt((head_dim + rope_dim) / head_dim)
    yield "q_proj.weight", widened * torch.cat([dense.query, rotary], dim=1).flatten(0, 1)
    data = rank - 1
    latent, key = layer.kv_a[:data], layer.kv_a[data:]
    yield "kv_a_proj_with_mqa.weight", torch.cat([latent, torch.zeros(1, hidden), key])
    bias = torch.zeros(rank + rope_dim)
    bias[data] = _LATENT_NORM_WEIGHT * math.sqrt(rank)
    yield "kv_a_proj_with_mqa.bias", bias
    norm = torch.full((rank,), _LATENT_NORM_WEIGHT)
    norm[data] = 0.0
    yield "kv_a_layernorm.weight", norm
    yield "kv_b_proj.weight", torch.cat([layer.kv_b, torch.zeros(heads, 2 * head_dim, 1)], -1).flatten(0, 1)
    yield "o_proj.weight", dense.output.flatten(1)
    yield "o_proj.bias", torch.zeros(hidden)


def _experts(dense: DenseLayer, plan: ExpertPlan, config: DeepseekConfig) -> Iterator[tuple[str, Tensor]]:
    width = config.moe_intermediate_size
    shared = config.n_shared_experts * width
    parts = {"shared_experts": plan.order[:shared]}
    for expert, neurons in enumerate(torch.split(plan.order[shared:], width)):
        parts[f"experts.{expert}"] = neurons
    for name, neurons in parts.items():
        yield f"{name}.gate_proj.weight", dense.gate[neurons]
        yield f"{name}.up_proj.weight", dense.up[neurons]
        yield f"{name}.down_proj.weight", dense.down[:, neurons]
    yield "gate.weight", plan.router
    yield "gate.e_score_correction_bias", plan.correction

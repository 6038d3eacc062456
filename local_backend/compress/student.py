"""A smaller model as DeepSeek-V3 tensors: the dense layers rearranged by a plan that calibration made.

The plan of a layer is small beside its weights and, with the folder of profile `exact`, says all: a delta
carries it, so that no other machine has to repeat the calibration to the last bit.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from local_backend.compress.activations import Activations
from local_backend.compress.attention import attend
from local_backend.compress.dense import DenseLayer, group_count, read_dense
from local_backend.compress.experts import ExpertPlan, plan_experts
from local_backend.compress.latent import LatentPlan, Pair, choose_pairs, compressed, pair_basis, queries
from local_backend.model.config import DeepseekConfig
from local_backend.model.rope import inverse_frequencies
from local_backend.weights.deepseek_io import Checkpoint
from local_backend.weights.progress import Progress

# As in weights/convert.py: a constant coordinate makes DeepSeek's norm of the latent a fixed factor.
_LATENT_NORM_WEIGHT = 512.0


@dataclass(frozen=True)
class LatentShape:
    """rope_pairs keep their rotation; rank is that of the latent, its constant included."""

    rope_pairs: int
    rank: int


@dataclass(frozen=True)
class Shape:
    """latent: None leaves attention as it is. top_k of the routed experts run, all where it is None."""

    latent: LatentShape | None = None
    top_k: int | None = None


@dataclass(frozen=True)
class LayerPlan:
    """What of a layer is None stays as it is."""

    attention: LatentPlan | None
    experts: ExpertPlan | None


@dataclass(frozen=True)
class Plan:
    """What calibration decided; pairs are those that keep their rotation."""

    shape: Shape
    pairs: list[Pair]
    layers: list[LayerPlan]


def make_plan(
    checkpoint: Checkpoint, config: DeepseekConfig, seen: Activations, shape: Shape, progress: Progress
) -> Plan:
    """Calibrate to what the layers of the exact model saw."""
    count = config.num_hidden_layers
    dense = [read_dense(checkpoint, config, layer) for layer in range(count)]
    pairs, attention = _plan_attention(dense, config, seen, shape.latent, progress)
    experts: list[ExpertPlan | None] = [None] * count
    if shape.top_k is not None:
        shared = config.n_shared_experts * config.moe_intermediate_size
        for layer, samples in enumerate(seen.feed_forward):
            progress("sorting neurons into experts", layer, count)
            experts[layer] = plan_experts(dense[layer], samples, shared, config.n_routed_experts)
        progress("sorting neurons into experts", count, count)
    return Plan(shape, pairs, [LayerPlan(*each) for each in zip(attention, experts, strict=True)])


def _plan_attention(
    dense: list[DenseLayer],
    config: DeepseekConfig,
    seen: Activations,
    shape: LatentShape | None,
    progress: Progress,
) -> tuple[list[Pair], Sequence[LatentPlan | None]]:
    if shape is None:
        return [], [None] * len(dense)
    frequencies = dense_frequencies(config)
    attended = []
    for done, (layer, inputs) in enumerate(zip(dense, seen.attention, strict=True)):
        progress("measuring attention", done, len(dense))
        attended.append(attend(layer, inputs, frequencies))
    progress("measuring attention", len(dense), len(dense))
    bases = [pair_basis(*each) for each in zip(dense, attended, strict=True)]
    pairs = choose_pairs(bases, attended, shape.rope_pairs)
    return pairs, [
        compressed(*each, pairs, shape.rank - 1) for each in zip(dense, attended, bases, strict=True)
    ]


def dense_frequencies(config: DeepseekConfig) -> Tensor:
    """The angle that each key pair of a dense head turns a position."""
    every = inverse_frequencies(config.rope, config.qk_rope_head_dim, config.max_position_embeddings)
    return every[: config.v_head_dim // 2]


def student_config(raw: Mapping[str, Any], config: DeepseekConfig, plan: Plan) -> dict[str, Any]:
    """config.json of the smaller model, from that of the exact one."""
    changed = dict(raw) | {
        "num_experts_per_tok": plan.shape.top_k or config.n_routed_experts,
        "dense_key_value_heads": group_count(config),
    }
    if plan.shape.latent is None:
        return changed
    rope_dim = 2 * plan.shape.latent.rope_pairs
    frequencies = dense_frequencies(config).double()
    wanted = torch.stack([frequencies[at] for at, _ in plan.pairs])
    standard = config.rope.rope_theta ** (-torch.arange(0, rope_dim, 2).double() / rope_dim)
    factors = (standard / wanted).tolist()
    rope = dict(raw["rope_parameters"]) | {"short_factor": factors, "long_factor": factors}
    return changed | {
        "qk_rope_head_dim": rope_dim,
        "qk_nope_head_dim": config.v_head_dim,
        "kv_lora_rank": plan.shape.latent.rank,
        "rope_parameters": rope,
    }


def student_tensors(
    checkpoint: Checkpoint, config: DeepseekConfig, plan: Plan
) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the smaller model, float32."""
    for layer, each in enumerate(plan.layers):
        dense = read_dense(checkpoint, config, layer)
        prefix = f"model.layers.{layer}."
        if each.attention is not None:
            for name, tensor in _attention(dense, each.attention, plan.pairs):
                yield f"{prefix}self_attn.{name}", tensor.float().contiguous()
        if each.experts is not None:
            for name, tensor in _experts(dense, each.experts, config):
                yield f"{prefix}mlp.{name}", tensor.contiguous()
    is_replaced = {".self_attn.": plan.shape.latent is not None, ".mlp.": plan.shape.top_k is not None}
    for name in checkpoint:
        if not any(part in name for part, replaced in is_replaced.items() if replaced):
            yield name, checkpoint[name]


def _attention(dense: DenseLayer, plan: LatentPlan, pairs: list[Pair]) -> Iterator[tuple[str, Tensor]]:
    heads, head_dim, hidden = dense.query.shape
    data, rope_dim = plan.kv_b.shape[-1], 2 * len(pairs)
    rank = data + 1
    # The softmax divides by the root of the wider head.
    widened = math.sqrt((head_dim + rope_dim) / head_dim)
    yield "q_proj.weight", widened * torch.cat(queries(dense, plan, pairs), dim=1).flatten(0, 1)
    latent, key = plan.kv_a[:data], plan.kv_a[data:]
    yield "kv_a_proj_with_mqa.weight", torch.cat([latent, torch.zeros(1, hidden), key])
    bias = torch.zeros(rank + rope_dim)
    bias[data] = _LATENT_NORM_WEIGHT * math.sqrt(rank)
    yield "kv_a_proj_with_mqa.bias", bias
    norm = torch.full((rank,), _LATENT_NORM_WEIGHT)
    norm[data] = 0.0
    yield "kv_a_layernorm.weight", norm
    yield "kv_b_proj.weight", torch.cat([plan.kv_b, torch.zeros(heads, 2 * head_dim, 1)], -1).flatten(0, 1)
    yield "o_proj.weight", dense.output.flatten(1)
    yield "o_proj.bias", plan.output_bias


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

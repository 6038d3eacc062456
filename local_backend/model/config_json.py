"""Reads a Hugging Face config.json of a DeepSeek-V2 or V3 model.

What the model cannot do is refused by name, so that no checkpoint is served as something it is not.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from local_backend.errors import WeightsError
from local_backend.model.config import DeepseekConfig, RopeConfig

# What each generation's config means where it is silent.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "deepseek_v2": {"scoring_func": "softmax", "topk_method": "greedy", "norm_topk_prob": False},
    "deepseek_v3": {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "norm_topk_prob": True},
}

_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "scoring_func": ("softmax", "sigmoid"),
    "topk_method": ("greedy", "group_limited_greedy", "noaux_tc"),
    "hidden_act": ("silu",),
    "moe_layer_freq": (1,),
    "mlp_bias": (False,),
}

_ROPE_TYPES = ("default", "yarn", "longrope")

# Read from nested or renamed keys, not from a key of their own name.
_DERIVED = ("rope", "eos_token_ids", "weight_block_size", "dual_chunk", "sinks")


def parse_config(raw: Mapping[str, Any]) -> DeepseekConfig:
    """The hyperparameters of a config.json, with `rope_scaling` (old) or `rope_parameters` (new).

    Raises WeightsError that names what is missing, unsupported or contradictory.
    """
    model_type = raw.get("model_type")
    if model_type not in _DEFAULTS:
        raise WeightsError(f"model_type {model_type!r} is not supported, only {_listed(_DEFAULTS)}")
    values = _DEFAULTS[model_type] | {name: value for name, value in raw.items() if value is not None}
    for name, supported in _SUPPORTED.items():
        if values.get(name, supported[0]) not in supported:
            raise WeightsError(f"{name} {values[name]!r} is not supported, only {_listed(supported)}")
    values.setdefault("n_shared_experts", 0)
    if values.setdefault("n_routed_experts", 0) == 0:
        values |= {
            "num_experts_per_tok": 0,
            "moe_intermediate_size": 0,
            "first_k_dense_replace": values.get("num_hidden_layers"),
        }
    known = [field for field in fields(DeepseekConfig) if field.name not in _DERIVED]
    if missing := [each.name for each in known if each.default is MISSING and each.name not in values]:
        raise WeightsError(f"config.json lacks {', '.join(missing)}")
    eos = values.get("eos_token_id", ())
    config = DeepseekConfig(
        **{field.name: values[field.name] for field in known if field.name in values},
        rope=_rope_config(values),
        eos_token_ids=tuple(eos) if isinstance(eos, list | tuple) else (int(eos),),
        weight_block_size=_weight_block_size(values.get("quantization_config")),
    )
    _check_experts(config)
    return config


def _check_experts(config: DeepseekConfig) -> None:
    experts, groups = config.n_routed_experts, config.n_group
    if experts % groups:
        raise WeightsError(f"n_routed_experts {experts} cannot be cut into n_group {groups} equal groups")
    if config.topk_group > groups:
        raise WeightsError(f"topk_group {config.topk_group} exceeds n_group {groups}")
    within = experts if config.topk_method == "greedy" else experts // groups * config.topk_group
    if config.num_experts_per_tok > within:
        raise WeightsError(
            f"num_experts_per_tok {config.num_experts_per_tok} exceeds the {within} experts to choose from"
        )


def _weight_block_size(quantization: Mapping[str, Any] | None) -> tuple[int, int] | None:
    if not quantization:
        return None
    method, block = quantization.get("quant_method"), quantization.get("weight_block_size")
    if method != "fp8" or not block:
        raise WeightsError(
            f"quantization_config with quant_method {method!r} and weight_block_size {block!r} is not "
            "supported, only 'fp8' in blocks; convert the weights to bfloat16 first"
        )
    return int(block[0]), int(block[1])


def _rope_config(values: Mapping[str, Any]) -> RopeConfig:
    scaling = dict(values.get("rope_parameters") or values.get("rope_scaling") or {})
    scaling.setdefault("rope_theta", values.get("rope_theta", 10000.0))
    scaling.setdefault("rope_type", scaling.get("type", "default"))
    scaling.setdefault("original_max_position_embeddings", values["max_position_embeddings"])
    if scaling["rope_type"] not in _ROPE_TYPES:
        raise WeightsError(
            f"rope_type {scaling['rope_type']!r} is not supported, only {_listed(_ROPE_TYPES)}"
        )
    known = {field.name for field in fields(RopeConfig)}
    kept: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in scaling.items()
        if name in known and value is not None
    }
    return RopeConfig(**kept)


def _listed(names: Any) -> str:
    return " or ".join(repr(name) for name in names)

"""The hyperparameters of a DeepSeek-V3 model, read from a Hugging Face config.json."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from local_backend.errors import WeightsError


@dataclass(frozen=True)
class RopeConfig:
    """Rotary frequencies: `default`, `yarn` (arXiv 2309.00071) or `longrope` (arXiv 2402.13753)."""

    rope_type: str = "default"
    rope_theta: float = 10000.0
    factor: float = 1.0
    attention_factor: float | None = None
    original_max_position_embeddings: int = 0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 0.0
    mscale_all_dim: float = 0.0
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()


@dataclass(frozen=True)
class DeepseekConfig:
    """Names and meanings are those of DeepSeek-V3's published config.json."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    moe_intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    n_shared_experts: int
    n_routed_experts: int
    num_experts_per_tok: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope: RopeConfig
    q_lora_rank: int | None = None
    routed_scaling_factor: float = 1.0
    norm_topk_prob: bool = True
    n_group: int = 1
    topk_group: int = 1
    first_k_dense_replace: int = 0
    rope_interleave: bool = True
    attention_bias: bool = False
    tie_word_embeddings: bool = False
    eos_token_ids: tuple[int, ...] = ()

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def latent_dim(self) -> int:
        """Cached elements a token a layer: the compressed latent and the shared rotary key."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    @property
    def all_experts_active(self) -> bool:
        return self.num_experts_per_tok == self.n_routed_experts

    @property
    def softmax_scale(self) -> float:
        """1/sqrt(qk_head_dim), times YaRN's mscale squared when `mscale_all_dim` asks for it."""
        scale = 1 / math.sqrt(self.qk_head_dim)
        if self.rope.rope_type == "yarn" and self.rope.mscale_all_dim:
            scale *= yarn_mscale(self.rope.factor, self.rope.mscale_all_dim) ** 2
        return scale

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "DeepseekConfig":
        """Read a config.json, old (`rope_scaling`) or new (`rope_parameters`).

        Raises WeightsError for another architecture, a quantised checkpoint or a missing key.
        """
        if raw.get("model_type") != "deepseek_v3":
            raise WeightsError(
                f"model_type {raw.get('model_type')!r} is not supported, only 'deepseek_v3' is"
            )
        if raw.get("quantization_config"):
            raise WeightsError(
                "quantised checkpoints are not supported; convert the weights to bfloat16 first"
            )
        if (function := raw.get("scoring_func", "sigmoid")) != "sigmoid":
            raise WeightsError(f"router scoring {function!r} is not supported, only 'sigmoid' is")
        known = {field.name for field in fields(cls)} - {"rope", "eos_token_ids"}
        eos = raw.get("eos_token_id")
        try:
            return cls(
                **{name: raw[name] for name in known if name in raw},
                rope=_rope_config(raw),
                eos_token_ids=tuple(eos) if isinstance(eos, list) else () if eos is None else (int(eos),),
            )
        except TypeError as error:
            raise WeightsError(f"config.json is incomplete: {error}") from error


def yarn_mscale(factor: float, mscale: float) -> float:
    """YaRN's attention temperature (arXiv 2309.00071, section 3.4), as DeepSeek parametrises it."""
    return 1.0 if factor <= 1.0 else 0.1 * mscale * math.log(factor) + 1.0


def _rope_config(raw: Mapping[str, Any]) -> RopeConfig:
    scaling = dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
    scaling.setdefault("rope_theta", raw.get("rope_theta", 10000.0))
    scaling.setdefault("rope_type", scaling.get("type", "default"))
    scaling.setdefault("original_max_position_embeddings", raw["max_position_embeddings"])
    if scaling["rope_type"] not in ("default", "yarn", "longrope"):
        raise WeightsError(f"rope_type {scaling['rope_type']!r} is not supported")
    known = {field.name for field in fields(RopeConfig)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in scaling.items()
    }
    return RopeConfig(
        **{name: value for name, value in values.items() if name in known and value is not None}
    )

"""The hyperparameters of a DeepSeek-V2 or V3 model (arXiv 2405.04434 and 2412.19437)."""

import math
from dataclasses import dataclass


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
class DualChunk:
    """Dual chunk attention: positions are counted in chunks shorter than the trained length."""

    chunk_length: int
    trained_length: int


@dataclass(frozen=True)
class DeepseekConfig:
    """Names and meanings are those of DeepSeek's published config.json files.

    weight_block_size is that of an FP8 checkpoint, whose matrices carry one scale a block. Three are not
    DeepSeek's: dual_chunk and sinks are set where a text may be longer than the trained context, and
    dense_key_value_heads in a model that was compressed from one with grouped-query attention.
    """

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
    scoring_func: str = "sigmoid"
    topk_method: str = "noaux_tc"
    n_group: int = 1
    topk_group: int = 1
    first_k_dense_replace: int = 0
    rope_interleave: bool = True
    attention_bias: bool = False
    tie_word_embeddings: bool = False
    eos_token_ids: tuple[int, ...] = ()
    weight_block_size: tuple[int, int] | None = None
    dual_chunk: DualChunk | None = None
    sinks: int = 0
    dense_key_value_heads: int | None = None

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


def yarn_mscale(factor: float, mscale: float) -> float:
    """YaRN's attention temperature (arXiv 2309.00071, section 3.4), as DeepSeek parametrises it."""
    return 1.0 if factor <= 1.0 else 0.1 * mscale * math.log(factor) + 1.0

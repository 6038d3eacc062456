"""Rewrites a dense Llama model in the DeepSeek-V3 layout without changing what it computes (profile `exact`).

Grouped-query attention becomes MLA: the keys of all KV heads together are the shared rotary key, a query is
zero outside the block of its own KV head, and the latent is the values of all KV heads. DeepSeek normalises
the latent, so a constant coordinate, much larger than any value, makes that RMSNorm a fixed factor that its
weight undoes (the idea of expressing GQA in MLA: TransMLA, arXiv 2502.07864). The rank is padded to a perfect
square, which makes the constant and the weight powers of two times small integers and so exact in bfloat16
too.

A dense FFN becomes MoE by slicing its neurons: a third into shared experts, the rest into routed experts that
are all active. A zero router gives each of them sigmoid(0) = 1/2, and routed_scaling_factor 2 makes that 1.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from local_backend.errors import WeightsError
from local_backend.weights.gguf import LlamaConfig, LlamaGguf

N_SHARED_EXPERTS = 4
N_ROUTED_EXPERTS = 8
_LATENT_NORM_WEIGHT = 512.0


def converted_config(dense: LlamaConfig) -> dict[str, Any]:
    """The `config.json` of the converted model, in the keys of Hugging Face's DeepseekV3Config.

    Raises WeightsError when the FFN cannot be cut into twelve equal experts.
    """
    experts = N_SHARED_EXPERTS + N_ROUTED_EXPERTS
    if dense.intermediate_size % experts:
        raise WeightsError(
            f"an FFN of {dense.intermediate_size} neurons cannot be cut into {experts} equal experts"
        )
    rope_dim = dense.num_key_value_heads * dense.head_dim
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "vocab_size": dense.vocab_size,
        "hidden_size": dense.hidden_size,
        "intermediate_size": dense.intermediate_size,
        "moe_intermediate_size": dense.intermediate_size // experts,
        "num_hidden_layers": dense.num_hidden_layers,
        "num_attention_heads": dense.num_attention_heads,
        "num_key_value_heads": dense.num_attention_heads,
        "n_shared_experts": N_SHARED_EXPERTS,
        "n_routed_experts": N_ROUTED_EXPERTS,
        "num_experts_per_tok": N_ROUTED_EXPERTS,
        "routed_scaling_factor": 2.0,
        "norm_topk_prob": False,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 0,
        "moe_layer_freq": 1,
        "num_nextn_predict_layers": 0,
        "kv_lora_rank": _latent_root(rope_dim) ** 2,
        "q_lora_rank": None,
        "qk_nope_head_dim": 0,
        "qk_rope_head_dim": rope_dim,
        "v_head_dim": dense.head_dim,
        "rope_interleave": True,
        "rope_parameters": _rope_parameters(dense, rope_dim),
        "max_position_embeddings": dense.max_position_embeddings,
        "rms_norm_eps": dense.rms_norm_eps,
        "attention_bias": True,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": dense.bos_token_id,
        "eos_token_id": dense.eos_token_id,
        "pad_token_id": dense.pad_token_id,
        "dtype": "float32",
    }


def converted_tensors(gguf: LlamaGguf) -> Iterator[tuple[str, Tensor]]:
    """The checkpoint's tensors under DeepSeek-V3's names, float32, layer by layer."""
    if "output.weight" in gguf.names():
        raise WeightsError("a model with an untied output matrix cannot be converted")
    yield "model.embed_tokens.weight", gguf.tensor("token_embd.weight")
    yield "model.norm.weight", gguf.tensor("output_norm.weight")
    for layer in range(gguf.config.num_hidden_layers):
        name = f"model.layers.{layer}"
        block = f"blk.{layer}"
        yield f"{name}.input_layernorm.weight", gguf.tensor(f"{block}.attn_norm.weight")
        yield f"{name}.post_attention_layernorm.weight", gguf.tensor(f"{block}.ffn_norm.weight")
        for suffix, tensor in _attention(gguf, block):
            yield f"{name}.self_attn.{suffix}", tensor
        for suffix, tensor in _experts(gguf, block):
            yield f"{name}.mlp.{suffix}", tensor


def _attention(gguf: LlamaGguf, block: str) -> Iterator[tuple[str, Tensor]]:
    dense = gguf.config
    heads, groups, head_dim = dense.num_attention_heads, dense.num_key_value_heads, dense.head_dim
    values = groups * head_dim
    root = _latent_root(values)
    rank = root**2

    # The softmax divides by sqrt(qk_head_dim), which is now wider than the dense head by this factor.
    query = gguf.tensor(f"{block}.attn_q.weight").view(heads, head_dim, -1) * math.sqrt(values / head_dim)
    spread = torch.zeros(heads, groups, head_dim, dense.hidden_size)
    group_of = torch.arange(heads) // (heads // groups)
    spread[torch.arange(heads), group_of] = query
    yield "q_proj.weight", spread.view(heads * values, -1)

    latent = torch.zeros(rank, dense.hidden_size)
    latent[:values] = gguf.tensor(f"{block}.attn_v.weight")
    yield "kv_a_proj_with_mqa.weight", torch.cat([latent, gguf.tensor(f"{block}.attn_k.weight")])
    bias = torch.zeros(rank + values)
    bias[rank - 1] = _LATENT_NORM_WEIGHT * root
    yield "kv_a_proj_with_mqa.bias", bias
    norm = torch.full((rank,), _LATENT_NORM_WEIGHT)
    norm[values:] = 0.0
    yield "kv_a_layernorm.weight", norm

    select = torch.zeros(heads, head_dim, rank)
    for head in range(heads):
        start = int(group_of[head]) * head_dim
        select[head, :, start : start + head_dim] = torch.eye(head_dim)
    yield "kv_b_proj.weight", select.view(heads * head_dim, rank)
    yield "o_proj.weight", gguf.tensor(f"{block}.attn_output.weight")
    yield "o_proj.bias", torch.zeros(dense.hidden_size)


def _experts(gguf: LlamaGguf, block: str) -> Iterator[tuple[str, Tensor]]:
    gate = gguf.tensor(f"{block}.ffn_gate.weight")
    up = gguf.tensor(f"{block}.ffn_up.weight")
    down = gguf.tensor(f"{block}.ffn_down.weight")
    width = gate.shape[0] // (N_SHARED_EXPERTS + N_ROUTED_EXPERTS)
    slices = {"shared_experts": slice(0, N_SHARED_EXPERTS * width)}
    for expert in range(N_ROUTED_EXPERTS):
        start = (N_SHARED_EXPERTS + expert) * width
        slices[f"experts.{expert}"] = slice(start, start + width)
    for name, neurons in slices.items():
        yield f"{name}.gate_proj.weight", gate[neurons]
        yield f"{name}.up_proj.weight", up[neurons]
        yield f"{name}.down_proj.weight", down[:, neurons].contiguous()
    yield "gate.weight", torch.zeros(N_ROUTED_EXPERTS, gate.shape[1])
    yield "gate.e_score_correction_bias", torch.zeros(N_ROUTED_EXPERTS)


def _latent_root(values: int) -> int:
    """The root of the smallest square with room for all values and the constant coordinate."""
    return math.isqrt(values) + 1


def _rope_parameters(dense: LlamaConfig, rope_dim: int) -> dict[str, Any]:
    """Every KV head keeps the dense model's frequencies; longrope's factors can express that repetition."""
    pairs = dense.head_dim // 2
    factors = []
    for index in range(rope_dim // 2):
        wanted = dense.rope_theta ** (-(index % pairs) / pairs)
        standard = dense.rope_theta ** (-2 * index / rope_dim)
        factors.append(standard / wanted)
    return {
        "rope_type": "longrope",
        "rope_theta": dense.rope_theta,
        "short_factor": factors,
        "long_factor": factors,
        "original_max_position_embeddings": dense.max_position_embeddings,
        "attention_factor": 1.0,
        "factor": 1.0,
    }

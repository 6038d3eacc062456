"""The naive and the absorbed form of MLA are the same function, whatever the shape and the schedule."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from local_backend.engine.latents import LatentPool
from local_backend.model.config import DeepseekConfig, RopeConfig
from local_backend.model.mla import MultiHeadLatentAttention, Span
from local_backend.model.rope import RotaryEmbedding

CPU = torch.device("cpu")


@st.composite
def configs(draw: st.DrawFn) -> DeepseekConfig:
    return DeepseekConfig(
        vocab_size=8,
        hidden_size=16,
        intermediate_size=8,
        moe_intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=draw(st.integers(1, 5)),
        n_shared_experts=0,
        n_routed_experts=0,
        num_experts_per_tok=0,
        kv_lora_rank=draw(st.integers(1, 24)),
        qk_nope_head_dim=draw(st.integers(0, 12)),
        qk_rope_head_dim=2 * draw(st.integers(1, 6)),
        v_head_dim=draw(st.integers(1, 12)),
        max_position_embeddings=64,
        rms_norm_eps=1e-6,
        rope=RopeConfig(),
        q_lora_rank=draw(st.none() | st.integers(1, 10)),
        rope_interleave=draw(st.booleans()),
    )


@given(configs(), st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 3), st.integers(0, 9))
@settings(max_examples=60)
@torch.inference_mode()
def test_both_forms_agree_however_the_tokens_are_cut(
    config: DeepseekConfig, chunks: list[int], rows: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    attention = MultiHeadLatentAttention(config, 0)
    for parameter in attention.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    rotary = RotaryEmbedding(config.rope, config.qk_rope_head_dim, 64, CPU)
    x = torch.randn(rows, sum(chunks), config.hidden_size, generator=generator)

    def attend(schedule: list[int], absorbed: bool | None) -> torch.Tensor:
        pool, outputs, start = LatentPool(config, rows, 64, CPU), [], 0
        for size in schedule:
            positions = torch.arange(start, start + size).expand(rows, -1)
            visible = [torch.arange(start + size) <= row[:, None] for row in positions]
            view = pool.rows(range(rows), start, start + size)
            span = Span(rotary(positions), visible, view, absorbed)
            outputs.append(attention(x[:, start : start + size], span))
            start += size
        return torch.cat(outputs, dim=1)

    naive = attend([sum(chunks)], False)
    for absorbed in (True, False, None):
        torch.testing.assert_close(attend(chunks, absorbed), naive, atol=1e-4, rtol=1e-4)

"""MLA decoding by FlashMLA (github.com/deepseek-ai/FlashMLA) and FlashInfer (arXiv 2501.01005).

Both are compiled for DeepSeek's own shape, a latent of 512 and a rotary key of 64 in bfloat16.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from local_backend.kernels.mla_decode import Pages

_WORKSPACE_BYTES = 128 << 20


def flash_mla(query: Tensor, pages: Pages, kv_lora_rank: int, scale: float) -> Tensor:
    """FlashMLA's dense decoding; its blocks hold 64 tokens."""
    import flash_mla as library  # noqa: PLC0415 - optional

    plan, splits = library.get_mla_metadata(pages.lengths, query.shape[1], 1)
    output: Tensor = library.flash_mla_with_kvcache(
        query[:, None],
        pages.pool[:, :, None],
        pages.tables,
        pages.lengths,
        kv_lora_rank,
        plan,
        splits,
        softmax_scale=scale,
    )[0]
    return output[:, 0]


def flashinfer(query: Tensor, pages: Pages, kv_lora_rank: int, scale: float) -> Tensor:
    """FlashInfer's paged MLA; it plans on the host, so it does not go into a CUDA graph."""
    rows, heads, width = query.shape
    size = pages.pool.shape[1]
    blocks = (pages.lengths + size - 1) // size
    used = torch.arange(pages.tables.shape[1], device=query.device) < blocks[:, None]
    starts = functional.pad(blocks.cumsum(0), (1, 0)).to(torch.int32)
    queries = torch.arange(rows + 1, dtype=torch.int32, device=query.device)
    wrapper = _wrapper(query.device)
    wrapper.plan(
        queries,
        starts,
        pages.tables[used],
        pages.lengths,
        heads,
        kv_lora_rank,
        width - kv_lora_rank,
        size,
        False,  # causal: there is one query
        scale,
        query.dtype,
        pages.pool.dtype,
    )
    q_latent, q_rope = query[..., :kv_lora_rank], query[..., kv_lora_rank:]
    latents, k_rope = pages.pool[..., :kv_lora_rank], pages.pool[..., kv_lora_rank:]
    output: Tensor = wrapper.run(q_latent, q_rope, latents, k_rope)
    return output


@cache
def _wrapper(device: torch.device) -> Any:
    from flashinfer.mla import BatchMLAPagedAttentionWrapper  # noqa: PLC0415 - optional

    return BatchMLAPagedAttentionWrapper(torch.empty(_WORKSPACE_BYTES, dtype=torch.int8, device=device))

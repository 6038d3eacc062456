"""Absorbed MLA decoding over paged latents: one query a sequence, through whichever kernel the device has.

A query is [rows, heads, kv_lora_rank + qk_rope_head_dim]; the result [rows, heads, kv_lora_rank] is still to
be expanded by W_UV.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from local_backend.kernels.dispatch import Kernel, capabilities, mla_decode
from local_backend.kernels.verify import agrees


@dataclass(frozen=True)
class Pages:
    """The latents of a batch in one layer of the cache.

    pool: [blocks, size, kv_lora_rank + qk_rope_head_dim]. tables: int32 [rows, blocks], each row's blocks in
    order. lengths: int32 [rows], at least 1.
    """

    pool: Tensor
    tables: Tensor
    lengths: Tensor


Decode = Callable[[Tensor, Pages, int, float], Tensor]
"""query, pages, kv_lora_rank, softmax scale -> attended latents."""


def decode(query: Tensor, pages: Pages, kv_lora_rank: int, scale: float) -> Tensor:
    """Attend from each query to the latents of its row."""
    pool = pages.pool
    compute = _kernel(pool.device, pool.dtype, kv_lora_rank, query.shape[2] - kv_lora_rank, pool.shape[1])
    return compute(query, pages, kv_lora_rank, scale)


def decode_reference(query: Tensor, pages: Pages, kv_lora_rank: int, scale: float) -> Tensor:
    """The definition: gather a row's latents, then softmax attention in float32."""
    rows = []
    for each, table, length in zip(query, pages.tables.long(), pages.lengths.tolist(), strict=True):
        latents = pages.pool[table].flatten(0, 1)[:length].float()
        weights = (each.float() @ latents.T * scale).softmax(dim=-1)
        rows.append(weights @ latents[:, :kv_lora_rank])
    return torch.stack(rows).to(query.dtype)


@cache
def _kernel(device: torch.device, dtype: torch.dtype, rank: int, rope: int, size: int) -> Decode:
    kernel = mla_decode(capabilities(device), dtype, rank, rope, size)
    if kernel is Kernel.REFERENCE:
        return decode_reference
    compute = _load(kernel)
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 16, rank + rope, generator=generator).to(device, dtype)
    pool = torch.randn(5, size, rank + rope, generator=generator).to(device, dtype)
    tables = torch.tensor([[4, 1], [0, 3]], dtype=torch.int32, device=device)
    lengths = torch.tensor([size + 3, 5], dtype=torch.int32, device=device)
    arguments = query, Pages(pool, tables, lengths), rank, (rank + rope) ** -0.5
    expected = decode_reference(*arguments).float()
    return compute if agrees(f"{kernel} decode", lambda: compute(*arguments), expected) else decode_reference


def _load(kernel: Kernel) -> Decode:
    """Imported when chosen: each module needs what only some machines have."""
    if kernel is Kernel.TRITON:
        from local_backend.kernels import triton_mla  # noqa: PLC0415

        return triton_mla.decode
    from local_backend.kernels import mla_libraries  # noqa: PLC0415

    return mla_libraries.flash_mla if kernel is Kernel.FLASH_MLA else mla_libraries.flashinfer

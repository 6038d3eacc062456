"""Absorbed MLA decoding over paged latents in Triton, split along the context (FlashDecoding's idea).

The heads of a sequence share its latents, so a program serves a block of heads and reads each latent once, as
key and as value. Long contexts are cut into splits that run side by side; each leaves its weighted sum and
its log-sum-exp, which are merged afterwards.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from local_backend.kernels.mla_decode import Pages

# The rows of the smallest product that tensor cores take.
_BLOCK_H = 16
_SPLIT_TOKENS = 1024


@triton.jit
def _decode_kernel(
    query, pool, tables, lengths, sums, logs, scale, heads, table_width, split_tokens, splits,
    RANK: tl.constexpr, ROPE: tl.constexpr, SIZE: tl.constexpr,
    BLOCK_H: tl.constexpr, BLOCK_RANK: tl.constexpr, BLOCK_ROPE: tl.constexpr, BLOCK_SIZE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    head = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    split = tl.program_id(2)
    rank = tl.arange(0, BLOCK_RANK)
    rope = tl.arange(0, BLOCK_ROPE)
    token = tl.arange(0, BLOCK_SIZE)
    width: tl.constexpr = RANK + ROPE

    length = tl.load(lengths + row)
    begin = split * split_tokens
    end = tl.minimum(begin + split_tokens, length)
    of_head = query + (row * heads + head)[:, None] * width
    q_latent = tl.load(
        of_head + rank[None, :], mask=(head[:, None] < heads) & (rank[None, :] < RANK), other=0.0
    )
    q_rope = tl.load(
        of_head + RANK + rope[None, :], mask=(head[:, None] < heads) & (rope[None, :] < ROPE), other=0.0
    )

    largest = tl.full((BLOCK_H,), float("-inf"), dtype=tl.float32)
    weight = tl.zeros((BLOCK_H,), dtype=tl.float32)
    total = tl.zeros((BLOCK_H, BLOCK_RANK), dtype=tl.float32)
    for start in range(begin, end, SIZE):
        block = tl.load(tables + row * table_width + start // SIZE).to(tl.int64)
        is_held = (token < SIZE) & (start + token < end)
        latent = pool + (block * SIZE + token)[:, None] * width
        k_latent = tl.load(latent + rank[None, :], mask=is_held[:, None] & (rank[None, :] < RANK), other=0.0)
        k_rope = tl.load(
            latent + RANK + rope[None, :], mask=is_held[:, None] & (rope[None, :] < ROPE), other=0.0
        )
        scores = tl.dot(q_latent, tl.trans(k_latent)) + tl.dot(q_rope, tl.trans(k_rope))
        scores = tl.where(is_held[None, :], scores * scale, float("-inf"))
        now_largest = tl.maximum(largest, tl.max(scores, 1))
        shrink = tl.exp(largest - now_largest)
        shares = tl.exp(scores - now_largest[:, None])
        weight = weight * shrink + tl.sum(shares, 1)
        total = total * shrink[:, None] + tl.dot(shares.to(k_latent.dtype), k_latent)
        largest = now_largest

    # A split beyond the end has no weight; it must leave zeros, not 0 / 0.
    is_empty = begin >= end
    safe = tl.where(is_empty, 1.0, weight)
    out = (row * heads + head) * splits + split
    tl.store(
        sums + out[:, None] * RANK + rank[None, :],
        total / safe[:, None],
        mask=(head[:, None] < heads) & (rank[None, :] < RANK),
    )
    tl.store(logs + out, tl.where(is_empty, float("-inf"), largest + tl.log(safe)), mask=head < heads)


def decode(query: Tensor, pages: Pages, kv_lora_rank: int, scale: float) -> Tensor:
    """Attend from one absorbed query a sequence, as `kernels.mla_decode` tells."""
    rows, heads, width = query.shape
    size, room = pages.pool.shape[1], pages.tables.shape[1] * pages.pool.shape[1]
    split_tokens = -(-_SPLIT_TOKENS // size) * size
    splits = triton.cdiv(room, split_tokens)
    sums = torch.empty(rows, heads, splits, kv_lora_rank, dtype=torch.float32, device=query.device)
    logs = torch.empty(rows, heads, splits, dtype=torch.float32, device=query.device)
    rope = width - kv_lora_rank
    _decode_kernel[rows, triton.cdiv(heads, _BLOCK_H), splits](
        query.contiguous(), pages.pool, pages.tables, pages.lengths, sums, logs,
        scale, heads, pages.tables.shape[1], split_tokens, splits,
        RANK=kv_lora_rank, ROPE=rope, SIZE=size,
        BLOCK_H=_BLOCK_H, BLOCK_RANK=_power(kv_lora_rank), BLOCK_ROPE=_power(rope), BLOCK_SIZE=_power(size),
    )  # fmt: skip
    shares = logs.softmax(dim=-1)
    return (sums * shares[..., None]).sum(2).to(query.dtype)


def _power(size: int) -> int:
    return max(_BLOCK_H, 1 << (size - 1).bit_length())

"""Packs the latents of the cache into bytes: the compressed part in FP8, the rotary key in bfloat16.

As FlashMLA's FP8 cache does, a token holds its latent in e4m3 with one float32 scale a tile of 128, then the
rotary key, which tolerates rounding less because it decides where attention looks. Layout of a token:

    kv_lora_rank e4m3 bytes, zeros to a multiple of 4 | float32 scales | qk_rope_head_dim bfloat16
"""

import torch
from torch import Tensor
from torch.nn import functional

from local_backend.kernels.fp8 import E4M3, TILE, dequantize_tiles, quantize_tiles

_ALIGNMENT = 4


def packed_bytes(kv_lora_rank: int, qk_rope_head_dim: int) -> int:
    """Bytes of a token in a layer."""
    return _aligned(kv_lora_rank) + 4 * -(-kv_lora_rank // TILE) + 2 * qk_rope_head_dim


def pack(latents: Tensor, kv_lora_rank: int) -> Tensor:
    """[.., kv_lora_rank + qk_rope_head_dim] of any float dtype -> uint8 [.., packed_bytes]."""
    compressed, k_rope = latents[..., :kv_lora_rank], latents[..., kv_lora_rank:]
    codes, scales = quantize_tiles(compressed)
    padded = functional.pad(codes.view(torch.uint8), (0, _aligned(kv_lora_rank) - kv_lora_rank))
    rope = k_rope.to(torch.bfloat16).contiguous()
    return torch.cat([padded, scales.view(torch.uint8), rope.view(torch.uint8)], dim=-1)


def unpack(packed: Tensor, kv_lora_rank: int, dtype: torch.dtype) -> Tensor:
    """The latents of packed bytes, [.., kv_lora_rank + qk_rope_head_dim] as `dtype`."""
    tiles = _aligned(kv_lora_rank)
    after = tiles + 4 * -(-kv_lora_rank // TILE)
    codes = packed[..., :kv_lora_rank].view(E4M3)
    scales = packed[..., tiles:after].contiguous().view(torch.float32)
    k_rope = packed[..., after:].contiguous().view(torch.bfloat16)
    return torch.cat([dequantize_tiles(codes, scales).to(dtype), k_rope.to(dtype)], dim=-1)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT

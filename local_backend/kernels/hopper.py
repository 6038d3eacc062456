"""FP8 products of other libraries, for Hopper: torch's scaled_mm (cuBLASLt) and deep_gemm.

Both want the activations' scales column by column; scaled_mm wants those of the weights padded to four.
"""

import torch
from torch import Tensor
from torch.nn import functional

from local_backend.kernels.fp8 import TILE

_SCALE_MULTIPLE = 4


def scaled_mm(a: Tensor, a_scales: Tensor, b: Tensor, b_scales: Tensor) -> Tensor:
    """Blockwise product in bfloat16; rows are padded to a multiple of four."""
    rows = len(a)
    a, a_scales = (_padded_rows(each, _SCALE_MULTIPLE) for each in (a, a_scales))
    tiles = b_scales.shape[1]
    weight_scales = functional.pad(b_scales, (0, -tiles % _SCALE_MULTIPLE)).contiguous()
    recipe = functional.ScalingType
    product = functional.scaled_mm(
        a,
        b.T,
        column_major(a_scales),
        recipe.BlockWise1x128,
        weight_scales.T,
        recipe.BlockWise128x128,
        output_dtype=torch.bfloat16,
    )
    return product[:rows]


def deep_gemm(a: Tensor, a_scales: Tensor, b: Tensor, b_scales: Tensor) -> Tensor:
    """DeepGEMM's dense product (github.com/deepseek-ai/DeepGEMM) in bfloat16."""
    import deep_gemm as library  # noqa: PLC0415 - optional

    output = a.new_empty(len(a), len(b), dtype=torch.bfloat16)
    library.fp8_gemm_nt((a, column_major(a_scales)), (b, b_scales), output)
    return output


def deep_gemm_contiguous(a: Tensor, a_scales: Tensor, b: Tensor, b_scales: Tensor, offsets: Tensor) -> Tensor:
    """DeepGEMM's contiguous grouped product; every expert's rows are moved to begin at a multiple of 128."""
    import deep_gemm as library  # noqa: PLC0415 - optional

    rows, experts = len(a), len(b)
    place, owner = aligned_rows(offsets, rows, TILE)
    room = len(owner)
    padded = a.new_zeros(room, a.shape[1])
    padded_scales = a_scales.new_zeros(room, a_scales.shape[1])
    padded[place], padded_scales[place] = a, a_scales
    output = a.new_empty(room, b.shape[1], dtype=torch.bfloat16)
    operands = (padded, column_major(padded_scales)), (b, b_scales)
    library.m_grouped_fp8_gemm_nt_contiguous(*operands, output, owner.clamp(max=experts - 1))
    return output[place]


def deep_gemm_masked(a: Tensor, a_scales: Tensor, b: Tensor, b_scales: Tensor, counts: Tensor) -> Tensor:
    """DeepGEMM's masked grouped product: a [experts, capacity, k]."""
    import deep_gemm as library  # noqa: PLC0415 - optional

    output = a.new_empty(*a.shape[:2], b.shape[1], dtype=torch.bfloat16)
    operands = (a, column_major(a_scales)), (b, b_scales)
    # The expected number of rows only tunes the kernel.
    library.m_grouped_fp8_gemm_nt_masked(*operands, output, counts, a.shape[1])
    return output


def column_major(scales: Tensor) -> Tensor:
    """The same [.., rows, tiles] with neighbours in a column beside each other."""
    return scales.transpose(-1, -2).contiguous().transpose(-1, -2)


def aligned_rows(offsets: Tensor, rows: int, multiple: int) -> tuple[Tensor, Tensor]:
    """Where each row goes when every expert begins at a multiple, and the expert of each place there.

    The number of places depends on `rows` and the experts alone, so nothing waits for the device.
    """
    experts = len(offsets)
    starts = functional.pad(offsets[:-1], (1, 0))
    counts = offsets - starts
    wide = (counts + multiple - 1) // multiple * multiple
    wide_ends = wide.cumsum(0)
    expert = torch.searchsorted(offsets, torch.arange(rows, device=offsets.device), right=True)
    place = torch.arange(rows, device=offsets.device) - starts[expert] + (wide_ends - wide)[expert]
    room = -(-rows // multiple) * multiple + experts * multiple
    owner = torch.searchsorted(wide_ends, torch.arange(room, device=offsets.device), right=True)
    return place, owner.to(torch.int32)


def _padded_rows(x: Tensor, multiple: int) -> Tensor:
    padding = -len(x) % multiple
    return torch.cat([x, x.new_zeros(padding, x.shape[1])]) if padding else x

"""Four bits a weight on a CPU, in torch's packed product: 16 levels in each group of 32 weights.

Decoding one token is bound by reading the weights, so four bits a weight instead of 32 pay off. A GGUF in
Q4_1 holds 16 evenly spaced levels a group, the same form, so its matrices are packed without loss. Others are
rounded to the nearest level when that is asked for. With many rows the product is bound by arithmetic, and
there a bfloat16 copy is faster.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

GROUP = 32
_LEVELS = 15
_ROW_MULTIPLE = 16
_TOLERANCE = 1e-5

CPU_ROWS = 32
"""The most rows of a decoding pass. All such passes take the same product, whatever is fastest at their size,
so that an answer does not depend on how many run beside it.

Measured on an AVX-512 core at 1728x576: at one row int4 takes half of bfloat16's time, at 8 as much, at 16
and more a third more. That is won back by what two passes instead of one cost besides.
"""


def has_int4() -> bool:
    """Whether this CPU has torch's vectorised int4 product; elsewhere it falls back to a slow scalar loop."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


class CpuProjection(nn.Module):
    """A linear layer, float32 [.., in] -> [.., out], over bfloat16 and, where exact, four-bit weights.

    Activations between products stay float32, which costs little and keeps the model four times closer to its
    float32 self (KL .0006 instead of .0024) than bfloat16 throughout.
    """

    packed: Tensor | None
    scales_and_zeros: Tensor | None
    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight: float32 [out, in]; bias: float32 [out]."""
        super().__init__()
        grid = pack_exactly(weight) if has_int4() else None
        self.register_buffer("packed", None if grid is None else grid[0])
        self.register_buffer("scales_and_zeros", None if grid is None else grid[1])
        self.register_buffer("weight", weight.to(torch.bfloat16))
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2).to(torch.bfloat16)
        if self.packed is None or self.scales_and_zeros is None or rows.shape[0] > CPU_ROWS:
            product = functional.linear(rows, self.weight)
        else:
            product = multiply(rows, self.packed, self.scales_and_zeros, len(self.weight))
        output = product.float() if self.bias is None else product + self.bias
        return output.view(*x.shape[:-1], -1)


class Int4Projection(nn.Module):
    """The same over four-bit weights alone, rounded where they must be: an eighth of float32's memory."""

    packed: Tensor
    scales_and_zeros: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight: float [out, in], `in` a multiple of 32; bias: float32 [out]."""
        super().__init__()
        self.out_features = len(weight)
        packed, scales_and_zeros = pack(*_nearest(weight.float())[:3])
        self.register_buffer("packed", packed)
        self.register_buffer("scales_and_zeros", scales_and_zeros)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2).to(torch.bfloat16)
        product = multiply(rows, self.packed, self.scales_and_zeros, self.out_features)
        output = product.float() if self.bias is None else product + self.bias
        return output.view(*x.shape[:-1], -1)


def multiply(rows: Tensor, packed: Tensor, scales_and_zeros: Tensor, outputs: int) -> Tensor:
    """Rows bfloat16 [n, in] times a packed matrix -> bfloat16 [n, outputs]."""
    product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(  # noqa: SLF001 - torch's only name for it
        rows, packed, GROUP, scales_and_zeros
    )
    return product[:, :outputs]


def pack_exactly(weight: Tensor) -> tuple[Tensor, Tensor] | None:
    """A float32 matrix packed, None when it is off the grid of 16 levels a group: packing would change it."""
    if weight.shape[1] % GROUP:
        return None
    codes, scales, minima, error = _nearest(weight)
    if error > _TOLERANCE * weight.abs().amax():
        return None
    return pack(codes, scales, minima)


def pack(codes: Tensor, scales: Tensor, minima: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [out, groups, 32] as torch's packed codes and bfloat16 [groups, out, 2] scales and zeros.

    Rows are padded to 16.
    """
    padding = (0, 0, 0, -len(codes) % _ROW_MULTIPLE)
    convert = torch.ops.aten._convert_weight_to_int4pack_for_cpu  # noqa: SLF001 - torch's only name for it
    packed = convert(functional.pad(codes.flatten(1).int(), padding), 1)
    # The product computes (code - 8) * scale + zero.
    pairs = torch.cat([scales, minima + 8 * scales], dim=-1).transpose(0, 1)
    return packed, functional.pad(pairs, (0, 0, *padding[2:])).to(torch.bfloat16).contiguous()


def _nearest(weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes [out, groups, 32], scales and minima [out, groups, 1], and the largest error of all."""
    groups = torch.unflatten(weight, 1, (-1, GROUP))
    minima, maxima = groups.aminmax(dim=-1, keepdim=True)
    scales = (maxima - minima) / _LEVELS
    codes = ((groups - minima) / scales.clamp_min(1e-30)).round_()
    error = torch.addcmul(minima, codes, scales).sub_(groups).abs_().amax()
    return codes, scales, minima, error

"""Projections on a CPU: bfloat16 products, from four-bit weights where those lose nothing.

Decoding one token is bound by reading the weights, so four bits a weight instead of 32 pay off. A GGUF in
Q4_1 holds 16 evenly spaced levels in each group of 32 weights and torch's packed product has the same form,
so such a matrix is stored exactly; one that is not on such a grid is kept in bfloat16 alone. With many rows
the product is bound by arithmetic, and there the bfloat16 matrix is faster. Activations between products stay
float32, which costs little and keeps the model four times closer to its float32 self (KL .0006 instead of
.0024) than bfloat16 throughout.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

GROUP = 32
_LEVELS = 15
_ROW_MULTIPLE = 16
_TOLERANCE = 1e-5

# Measured on two AVX-512 cores at 3072x576: at 8 rows int4 takes 0.7 of bfloat16's time, at 40 rows twice it.
_MAX_ROWS = 16


def has_int4() -> bool:
    """Whether this CPU has torch's vectorised int4 product; elsewhere it falls back to a slow scalar loop."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


class CpuProjection(nn.Module):
    """A linear layer, float32 [.., in] -> [.., out], over bfloat16 and, where exact, four-bit weights."""

    packed: Tensor | None
    scales_and_zeros: Tensor | None
    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight: float32 [out, in]; bias: float32 [out]."""
        super().__init__()
        self.out_features = weight.shape[0]
        grid = pack_exactly(weight) if has_int4() else None
        self.register_buffer("packed", None if grid is None else grid[0])
        self.register_buffer("scales_and_zeros", None if grid is None else grid[1])
        self.register_buffer("weight", weight.to(torch.bfloat16))
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, -2).to(torch.bfloat16)
        if self.packed is None or rows.shape[0] > _MAX_ROWS:
            product = functional.linear(rows, self.weight)
        else:
            multiply = torch.ops.aten._weight_int4pack_mm_for_cpu  # noqa: SLF001 - torch's only name for it
            product = multiply(rows, self.packed, GROUP, self.scales_and_zeros)
            product = product[:, : self.out_features]
        output = product.float() if self.bias is None else product + self.bias
        return output.view(*x.shape[:-1], self.out_features)


def pack_exactly(weight: Tensor) -> tuple[Tensor, Tensor] | None:
    """A float32 matrix [out, in] as torch's packed codes and [in / 32, out, 2] scales and zeros.

    None when it is not on a grid of 16 levels a group, so that packing would change it. Rows are padded to
    16.
    """
    if weight.shape[1] % GROUP:
        return None
    groups = torch.unflatten(weight, 1, (-1, GROUP))
    minima, maxima = groups.aminmax(dim=-1, keepdim=True)
    scales = (maxima - minima) / _LEVELS
    codes = ((groups - minima) / scales.clamp_min(1e-30)).round_()
    error = torch.addcmul(minima, codes, scales).sub_(groups).abs_().amax()
    if error > _TOLERANCE * weight.abs().amax():
        return None
    padding = (0, 0, 0, -weight.shape[0] % _ROW_MULTIPLE)
    pack = torch.ops.aten._convert_weight_to_int4pack_for_cpu  # noqa: SLF001 - torch's only name for it
    packed = pack(functional.pad(codes.flatten(1).int(), padding), 1)
    # The product computes (code - 8) * scale + zero.
    pairs = torch.cat([scales, minima + 8 * scales], dim=-1).transpose(0, 1)
    return packed, functional.pad(pairs, (0, 0, *padding[2:])).to(torch.bfloat16).contiguous()

"""Four-bit weights on CPU, used only where they lose nothing.

Decoding one token is bound by reading the weights, so four bits a weight instead of sixteen pay off. A GGUF in Q4_1
holds 16 evenly spaced levels in each group of 32 weights, and torch's packed product has the same form, so such a
matrix is stored exactly; a matrix that is not on such a grid is left alone. With many rows the product is bound by
arithmetic instead, and there the bfloat16 matrix, which is kept too, is faster.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP = 32
_LEVELS = 15
_ROW_MULTIPLE = 16
_TOLERANCE = 1e-5

# Measured on two AVX-512 cores at 3072x576: at 8 rows int4 takes 0.7 of bfloat16's time, at 40 rows twice it.
_MAX_ROWS = 16


def is_available() -> bool:
    """Whether this CPU has torch's vectorised int4 product; elsewhere it falls back to a slow scalar loop."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


class Int4Projection(nn.Module):
    """A linear layer over four-bit weights for few rows and bfloat16 weights for many."""

    packed: Tensor
    scales_and_zeros: Tensor
    weight: Tensor
    bias: Tensor | None

    def __init__(
        self, codes: Tensor, scales: Tensor, minima: Tensor, weight: Tensor, bias: Tensor | None
    ) -> None:
        """codes: int32 [out, in] in 0..15; scales, minima: [out, in / 32]; weight: bfloat16 [out, in]."""
        super().__init__()
        self.out_features = codes.shape[0]
        padding = (0, 0, 0, -codes.shape[0] % _ROW_MULTIPLE)
        pack = torch.ops.aten._convert_weight_to_int4pack_for_cpu
        self.register_buffer("packed", pack(F.pad(codes, padding), 1))
        # The product computes (code - 8) * scale + zero.
        pairs = torch.stack([F.pad(scales, padding), F.pad(minima + 8 * scales, padding)], dim=-1)
        self.register_buffer("scales_and_zeros", pairs.transpose(0, 1).to(torch.bfloat16).contiguous())
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    @classmethod
    def from_weight(cls, weight: Tensor, bias: Tensor | None) -> "Int4Projection | None":
        """Pack a float32 matrix [out, in], or return None when that would change any weight."""
        if weight.dtype != torch.float32 or weight.shape[1] % GROUP:
            return None
        groups = weight.unflatten(1, (-1, GROUP))
        minima, maxima = groups.aminmax(dim=-1)
        scales = (maxima - minima) / _LEVELS
        codes = ((groups - minima[..., None]) / scales.clamp_min(1e-30)[..., None]).round_()
        error = torch.addcmul(minima[..., None], codes, scales[..., None]).sub_(groups).abs_().amax()
        if error > _TOLERANCE * weight.abs().amax():
            return None
        codes = codes.flatten(1).to(torch.int32)
        return cls(
            codes, scales, minima, weight.to(torch.bfloat16), None if bias is None else bias.bfloat16()
        )

    def forward(self, x: Tensor) -> Tensor:
        """x bfloat16 [.., in] -> [.., out]."""
        rows = x.flatten(0, -2)
        if rows.shape[0] > _MAX_ROWS:
            return F.linear(x, self.weight, self.bias)
        product = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, GROUP, self.scales_and_zeros)
        product = product[:, : self.out_features]
        if self.bias is not None:
            product = product + self.bias
        return product.view(*x.shape[:-1], self.out_features)

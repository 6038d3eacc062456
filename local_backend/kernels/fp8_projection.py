"""Linear layers over FP8 weights in blocks of 128x128, multiplied as DeepSeek-V3 does."""

from torch import Tensor, nn

from local_backend.kernels import fp8_gemm, fp8_grouped
from local_backend.kernels.fp8 import quantize_blocks


class Fp8Projection(nn.Module):
    """[.., in] -> [.., out]; activations are rounded to FP8 too."""

    codes: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight: float [out, in]; bias: [out]."""
        super().__init__()
        codes, scales = quantize_blocks(weight)
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        output = fp8_gemm.linear(x, self.codes, self.scales)
        return output if self.bias is None else output + self.bias


class Fp8GroupedProjection(nn.Module):
    """The same for the experts of a layer; the interface of GroupedProjection."""

    codes: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor) -> None:
        """weight: float [experts, out, in]."""
        super().__init__()
        codes, scales = quantize_blocks(weight)
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)

    def contiguous(self, x: Tensor, offsets: Tensor) -> Tensor:
        """X [rows, in], sorted by expert, -> [rows, out]."""
        return fp8_grouped.contiguous(x, self.codes, self.scales, offsets)

    def masked(self, x: Tensor, counts: Tensor) -> Tensor:
        """X [experts, capacity, in] -> [experts, capacity, out]."""
        return fp8_grouped.masked(x, self.codes, self.scales, counts)

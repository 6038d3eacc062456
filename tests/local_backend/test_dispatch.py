"""What is chosen for which hardware, and the layouts of experts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from local_backend.errors import ConfigError
from local_backend.kernels import grouped
from local_backend.kernels.cpu_int4 import Int4Projection, has_int4
from local_backend.kernels.cpu_int8 import Int8Projection
from local_backend.kernels.dispatch import (
    Capabilities,
    Kernel,
    capabilities,
    fp8_gemm,
    fp8_grouped_gemm,
    grouped_gemm,
    is_masked_layout,
    mla_decode,
)
from local_backend.kernels.expert_layout import Contiguous, Masked
from local_backend.kernels.expert_loop import ExpertLoop
from local_backend.weights.repack import Quantization, choose_quantization
from tests.local_backend.test_fp8 import randn, relative

ALL = frozenset(str(kernel) for kernel in Kernel)
CPU = Capabilities("cpu", packages=ALL)
TRITON = frozenset({"triton"})


def cuda(compute: tuple[int, int], *packages: str, version: tuple[int, int] = (12, 9)) -> Capabilities:
    return Capabilities("cuda", compute, version, frozenset(packages))


A100, L40, H100, B200 = (8, 0), (8, 9), (9, 0), (10, 0)


@pytest.mark.parametrize(
    ("have", "inner", "expected"),
    [
        (CPU, 512, Kernel.REFERENCE),
        (cuda(H100, "triton", "deep_gemm"), 512, Kernel.DEEP_GEMM),
        (cuda(H100, "triton"), 512, Kernel.TORCH),
        (cuda(H100, "triton", version=(12, 8)), 512, Kernel.TRITON),
        (cuda(H100, "triton", "deep_gemm"), 576, Kernel.TRITON),
        (cuda(H100), 576, Kernel.REFERENCE),
        (cuda(L40, "triton", "deep_gemm"), 512, Kernel.TRITON),
        (cuda(B200, "triton", "deep_gemm"), 512, Kernel.TRITON),
        (cuda(A100, "triton"), 512, Kernel.REFERENCE),
    ],
)
def test_fp8_products(have: Capabilities, inner: int, expected: Kernel) -> None:
    assert fp8_gemm(have, inner, 1024) is expected
    grouped_too = Kernel.TRITON if expected is Kernel.TORCH else expected
    assert fp8_grouped_gemm(have, inner, 1024) is grouped_too


@pytest.mark.parametrize(
    ("have", "dtype", "inner", "expected"),
    [
        (CPU, torch.float32, 64, Kernel.TORCH),
        (CPU, torch.float32, 62, Kernel.REFERENCE),
        (CPU, torch.bfloat16, 68, Kernel.REFERENCE),
        (cuda(H100), torch.bfloat16, 64, Kernel.TORCH),
        (cuda(H100), torch.float32, 64, Kernel.REFERENCE),
        (cuda((7, 5)), torch.bfloat16, 64, Kernel.REFERENCE),
    ],
)
def test_grouped_products(have: Capabilities, dtype: torch.dtype, inner: int, expected: Kernel) -> None:
    assert grouped_gemm(have, dtype, inner, 128) is expected


@pytest.mark.parametrize(
    ("have", "dtype", "shape", "expected"),
    [
        (cuda(H100, *ALL), torch.bfloat16, (512, 64, 64), Kernel.FLASH_MLA),
        (cuda(H100, *ALL), torch.bfloat16, (512, 64, 32), Kernel.FLASHINFER),
        (cuda(H100, "flashinfer", "triton"), torch.bfloat16, (512, 64, 64), Kernel.FLASHINFER),
        (cuda(H100, *ALL), torch.float32, (512, 64, 64), Kernel.TRITON),
        (cuda(H100, *ALL), torch.bfloat16, (196, 192, 64), Kernel.TRITON),
        (cuda(A100, *ALL), torch.bfloat16, (512, 64, 64), Kernel.TRITON),
        (cuda(A100), torch.bfloat16, (512, 64, 64), Kernel.REFERENCE),
        (CPU, torch.bfloat16, (512, 64, 64), Kernel.REFERENCE),
    ],
)
def test_mla_decoding(
    have: Capabilities, dtype: torch.dtype, shape: tuple[int, int, int], expected: Kernel
) -> None:
    assert mla_decode(have, dtype, *shape) is expected


def test_few_choices_take_the_masked_layout_on_a_gpu_alone() -> None:
    assert is_masked_layout(cuda(H100), choices=64, experts=64)
    assert not is_masked_layout(cuda(H100), choices=4096, experts=64)
    assert not is_masked_layout(CPU, choices=8, experts=64)


def test_this_machine_is_looked_at() -> None:
    have = capabilities(torch.device("cpu"))
    assert (have.device, have.is_cuda, have.is_hopper) == ("cpu", False, False)
    assert have.packages <= ALL


def test_quantization_is_what_the_device_has() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert choose_quantization(Quantization.AUTO, cpu, (128, 128)) is Quantization.NONE
    assert choose_quantization(Quantization.FP8, cpu, None) is Quantization.FP8
    with pytest.raises(ConfigError, match="int8 is for the CPU"):
        choose_quantization(Quantization.INT8, gpu, None)


@st.composite
def choices(draw: st.DrawFn) -> tuple[torch.Tensor, int]:
    experts = draw(st.integers(1, 9))
    top_k = draw(st.integers(1, experts))
    rows = draw(st.lists(st.permutations(range(experts)), min_size=1, max_size=12))
    return torch.tensor([row[:top_k] for row in rows]), experts


@given(choices(), st.integers(0, 3))
@settings(max_examples=60)
def test_both_layouts_give_each_token_its_own_experts(drawn: tuple[torch.Tensor, int], seed: int) -> None:
    chosen, experts = drawn
    tokens, top_k = chosen.shape
    x, weight = randn(tokens, 8, seed=seed), randn(experts, 16, 8, seed=seed + 1)
    weights = randn(tokens, top_k, seed=seed + 2)
    expected = torch.einsum("tk,tki,tkoi->to", weights, x[:, None].expand(-1, top_k, -1), weight[chosen])
    by_expert = Contiguous.of(chosen, experts)
    rows = by_expert.gather(x)
    for product in (grouped.contiguous, grouped.contiguous_reference):
        found = by_expert.combine(product(rows, weight, by_expert.offsets), weights)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    by_block = Masked.of(chosen, experts)
    found = by_block.combine(grouped.masked(by_block.gather(x), weight, by_block.counts), weights)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert by_block.counts.sum() == chosen.numel()


@given(choices(), st.integers(0, 3))
@settings(max_examples=40)
def test_the_parts_of_two_ranks_add_up(drawn: tuple[torch.Tensor, int], seed: int) -> None:
    chosen, experts = drawn
    x, weight = randn(len(chosen), 8, seed=seed), randn(experts, 16, 8, seed=seed + 1)
    weights = randn(*chosen.shape, seed=seed + 2)
    whole = Contiguous.of(chosen, experts)
    expected = whole.combine(grouped.contiguous(whole.gather(x), weight, whole.offsets), weights)
    cut = experts // 2
    for layouts in ([Contiguous, Contiguous], [Masked, Masked]):
        total = torch.zeros_like(expected)
        for layout, first, count in zip(layouts, (0, cut), (cut, experts - cut), strict=True):
            if not count:
                continue
            own = weight[first : first + count]
            if layout is Contiguous:
                part = Contiguous.of(chosen, count, first, is_partial=True)
                product = grouped.contiguous(part.gather(x), own, part.offsets)
                total += part.combine(product, weights)
            else:
                block = Masked.of(chosen, count, first)
                total += block.combine(grouped.masked(block.gather(x), own, block.counts), weights)
        torch.testing.assert_close(total, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("form", "allowed"), [(Int8Projection, 0.02), (Int4Projection, 0.12)])
@pytest.mark.parametrize("rows", [1, 16, 17, 40])
def test_rounded_weights_are_near_the_exact_ones(form: type, allowed: float, rows: int) -> None:
    if form is Int4Projection and not has_int4():
        pytest.skip("this CPU has no vectorised int4 product")
    x, weight, bias = randn(2, rows, 96), randn(37, 96, seed=1), randn(37, seed=2)
    found = form(weight, bias)(x) - bias
    assert found.shape == (2, rows, 37)
    assert 1e-3 < relative(found, x @ weight.T) < allowed


def test_experts_in_a_loop_are_as_grouped() -> None:
    weight, rows = randn(3, 32, 64), randn(9, 64, seed=1)
    loop = ExpertLoop(weight, Int8Projection)
    offsets = torch.tensor([2, 2, 9], dtype=torch.int32)
    assert relative(loop.contiguous(rows, offsets), grouped.contiguous(rows, weight, offsets)) < 0.02
    blocks = randn(3, 4, 64, seed=2)
    counts = torch.tensor([4, 4, 4])
    assert relative(loop.masked(blocks, counts), grouped.masked(blocks, weight, counts)) < 0.02

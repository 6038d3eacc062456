"""FP8 in blocks: rounding, two-level accumulation, ragged tails, packed latents and the vendors' layouts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from local_backend.kernels import fp8, fp8_gemm, fp8_grouped, fp8_latents, hopper
from local_backend.kernels.fp8_projection import Fp8GroupedProjection, Fp8Projection
from local_backend.kernels.verify import agrees

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 300), st.integers(1, 400))


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@given(SHAPES)
@settings(max_examples=30)
def test_a_value_is_rounded_to_three_bits_of_mantissa_whatever_the_shape(shape: tuple[int, int, int]) -> None:
    rows, _, width = shape
    x = randn(rows, width) * torch.logspace(-3, 3, rows)[:, None]
    codes, scales = fp8.quantize_tiles(x)
    assert (codes.shape, scales.shape) == (x.shape, (rows, -(-width // 128)))
    largest = scales.repeat_interleave(128, 1)[:, :width]
    # Half a step of the mantissa, or of the smallest subnormal.
    allowed = torch.maximum(x.abs() / 16, largest * 2**-10)
    assert bool(((fp8.dequantize_tiles(codes, scales) - x).abs() <= allowed * 1.001).all())


@given(SHAPES)
@settings(max_examples=30)
def test_two_level_accumulation_is_the_product_of_what_the_codes_stand_for(
    shape: tuple[int, int, int],
) -> None:
    m, n, k = shape
    a, a_scales = fp8.quantize_tiles(randn(m, k))
    b, b_scales = fp8.quantize_blocks(randn(n, k, seed=1))
    expected = fp8.dequantize_tiles(a, a_scales).double() @ fp8.dequantize_blocks(b, b_scales).double().T
    torch.testing.assert_close(fp8.gemm(a, a_scales, b, b_scales).double(), expected, rtol=1e-4, atol=1e-4)


def test_an_outlier_spoils_only_its_own_block() -> None:
    weight = randn(256, 256)
    weight[3, 5] = 1e7
    found = fp8.dequantize_blocks(*fp8.quantize_blocks(weight))
    weight[3, 5] = found[3, 5] = 0
    assert relative(found[:128, :128], weight[:128, :128]) > 0.9
    assert relative(found[128:], weight[128:]) < 0.03
    assert relative(found[:, 128:], weight[:, 128:]) < 0.03


def test_zeros_stay_zeros() -> None:
    codes, scales = fp8.quantize_blocks(torch.zeros(200, 130))
    assert not fp8.dequantize_blocks(codes, scales).any()


def test_rounding_again_what_was_rounded_changes_nothing() -> None:
    """So an FP8 checkpoint, read as float32 and rounded to FP8 in the same blocks, is what it was."""
    once = fp8.dequantize_blocks(*fp8.quantize_blocks(randn(300, 200)))
    assert relative(fp8.dequantize_blocks(*fp8.quantize_blocks(once)), once) < 1e-6


@pytest.mark.parametrize("bias", [None, randn(200, seed=3)])
def test_a_projection_is_near_the_exact_one(bias: torch.Tensor | None) -> None:
    x, weight = randn(2, 7, 300), randn(200, 300, seed=1)
    assert 1e-4 < relative(Fp8Projection(weight, bias)(x), functional.linear(x, weight, bias)) < 0.05


def test_grouped_projections_are_near_the_exact_ones() -> None:
    weight = randn(3, 40, 150, seed=1)
    projection = Fp8GroupedProjection(weight)
    rows, blocks = randn(9, 150), randn(3, 4, 150)
    offsets, counts = torch.tensor([2, 2, 9]), torch.tensor([4, 0, 1])
    expected = torch.cat([rows[:2] @ weight[0].T, rows[2:] @ weight[2].T])
    assert relative(projection.contiguous(rows, offsets), expected) < 0.05
    found = projection.masked(blocks, counts)
    assert relative(found[0], blocks[0] @ weight[0].T) < 0.05
    assert relative(found[2, :1], blocks[2, :1] @ weight[2].T) < 0.05


@given(st.integers(1, 300), st.integers(1, 40), st.sampled_from([torch.float32, torch.bfloat16]))
@settings(max_examples=30)
def test_packed_latents_come_back_near_what_they_were(rank: int, pairs: int, dtype: torch.dtype) -> None:
    latents = randn(3, 5, rank + 2 * pairs).to(dtype)
    packed = fp8_latents.pack(latents, rank)
    assert packed.dtype == torch.uint8
    assert packed.shape == (3, 5, fp8_latents.packed_bytes(rank, 2 * pairs))
    found = fp8_latents.unpack(packed, rank, dtype)
    assert (found.shape, found.dtype) == (latents.shape, dtype)
    torch.testing.assert_close(found[..., rank:], latents[..., rank:].to(torch.bfloat16).to(dtype))
    torch.testing.assert_close(found[..., :rank], latents[..., :rank], rtol=0.07, atol=0.02)


def test_packed_latents_can_be_scattered_into_pages() -> None:
    """A pool of bytes holds tokens in any order; what was not written unpacks to zeros."""
    latents = randn(6, 196 + 192)
    pool = torch.zeros(20, fp8_latents.packed_bytes(196, 192), dtype=torch.uint8)
    places = torch.tensor([17, 3, 4, 11, 0, 9])
    pool.index_copy_(0, places, fp8_latents.pack(latents, 196))
    found = fp8_latents.unpack(pool, 196, torch.float32)
    assert relative(found[places], latents) < 0.04
    assert not found[[1, 2, 5]].any()


def test_deepseeks_own_token_takes_flashmlas_656_bytes() -> None:
    assert fp8_latents.packed_bytes(512, 64) == 656
    assert fp8_latents.packed_bytes(196, 192) == 588


def test_a_wrong_kernel_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    operands = fp8_gemm.trial(torch.device("cpu"))
    expected = fp8.gemm(*operands)
    a, a_scales, b, b_scales = operands
    assert agrees("right", lambda: fp8.gemm(*operands).to(torch.bfloat16), expected)
    swapped = b_scales.T.contiguous().view(b_scales.shape)
    assert not agrees("swapped", lambda: fp8.gemm(a, a_scales, b, swapped), expected)
    assert not agrees("failing", lambda: fp8.gemm(a, a_scales[:3], b, b_scales), expected)
    assert not agrees("silent", lambda: expected * float("nan"), expected)
    assert [record.message.split()[1] for record in caplog.records] == ["swapped", "failing", "silent"]


@pytest.mark.parametrize(("m", "n", "k"), [(5, 256, 640), (64, 128, 128)])
def test_torch_accepts_the_layout_of_the_scales(m: int, n: int, k: int) -> None:
    """torch checks scaled_mm's shapes and strides on the meta device too; only the numbers need Hopper."""
    a, a_scales = fp8.quantize_tiles(randn(m, k))
    b, b_scales = fp8.quantize_blocks(randn(n, k))
    product = hopper.scaled_mm(*(each.to("meta") for each in (a, a_scales, b, b_scales)))
    assert (product.shape, product.dtype) == ((m, n), torch.bfloat16)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=6).filter(any))
@settings(max_examples=40)
def test_aligned_rows_begin_at_multiples_and_keep_their_expert(counts: list[int]) -> None:
    offsets = torch.tensor(counts).cumsum(0).to(torch.int32)
    rows = sum(counts)
    place, owner = hopper.aligned_rows(offsets, rows, 128)
    assert len(set(place.tolist())) == rows
    assert len(owner) % 128 == 0
    expert = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    assert torch.equal(owner[place].long(), expert)
    for index in range(len(counts)):
        own = place[expert == index]
        if len(own):
            assert int(own[0]) % 128 == 0
            assert torch.equal(own, torch.arange(int(own[0]), int(own[0]) + len(own)))


def test_both_grouped_references_agree() -> None:
    by_expert, by_block = fp8_grouped._trials(torch.device("cpu"))
    assert fp8_grouped.contiguous_reference(*by_expert).isfinite().all()
    assert not fp8_grouped.masked_reference(*by_block)[1].any()

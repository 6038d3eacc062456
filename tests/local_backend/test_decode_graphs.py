"""Decoding through the paged kernel and through fixed buffers is decoding row by row.

A CUDA graph cannot be recorded here: `repeat` records by keeping the computation itself, so that what is
tested is all but CUDA's part, the buffers, the filling up and the spare block.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from local_backend.engine.decode_graphs import DecodeGraphs, can_record
from local_backend.engine.latents import Extent, LatentPool
from local_backend.model.model import DeepseekV3
from local_backend.weights.load import load_model
from tests.local_backend.conftest import make_oracle

CPU = torch.device("cpu")
TABLES = [[4, 1, 7], [0, 3], [2, 6, 5]]
LENGTHS = [17, 9, 22]


@pytest.fixture(params=[0, 16])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> DeepseekV3:
    make_oracle(tmp_path, qk_nope_head_dim=request.param)
    return load_model(tmp_path, 128, CPU, torch.float32)


@torch.inference_mode()
def prefilled(model: DeepseekV3) -> LatentPool:
    pool = LatentPool(model.config, 8, 8, CPU)
    generator = torch.Generator().manual_seed(1)
    for table, length in zip(TABLES, LENGTHS, strict=True):
        ids = torch.randint(0, 256, (1, length), generator=generator)
        model(ids, torch.arange(length)[None], pool.view([Extent(table, 0, length)]))
    return pool


def repeat(compute: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    return compute


@torch.inference_mode()
def test_a_paged_kernel_reads_what_rows_read(model: DeepseekV3) -> None:
    pool = prefilled(model)
    extents = [Extent(table, length, length + 1) for table, length in zip(TABLES, LENGTHS, strict=True)]
    arguments = torch.tensor([[5], [6], [7]]), torch.tensor(LENGTHS)[:, None]
    expected = model(*arguments, pool.view(extents))
    pool.has_paged_kernel = True
    torch.testing.assert_close(model(*arguments, pool.view(extents)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rows", [[0], [0, 1], [2, 0, 1]])
@torch.inference_mode()
def test_fixed_buffers_and_spare_rows_change_nothing(model: DeepseekV3, rows: list[int]) -> None:
    pool = prefilled(model)
    graphs = DecodeGraphs(model, pool, rows=6, max_blocks=5, record=repeat)
    before = pool.planes[:, : pool.spare].clone()
    for step in range(2):
        extents = [Extent(TABLES[row], LENGTHS[row] + step, LENGTHS[row] + step + 1) for row in rows]
        ids = [10 + row + step for row in rows]
        found = graphs(ids, extents)
        positions = torch.tensor([[extent.start] for extent in extents])
        hidden = model(torch.tensor(ids)[:, None], positions, pool.view(extents))
        torch.testing.assert_close(found, model.logits(hidden[:, -1]), atol=1e-5, rtol=0)
    changed = (pool.planes[:, : pool.spare] != before).any(-1).sum()
    assert int(changed) == 2 * len(rows) * model.config.num_hidden_layers


def test_a_cpu_has_neither_graphs_nor_a_paged_kernel(model: DeepseekV3) -> None:
    assert not can_record(CPU)
    assert not prefilled(model).has_paged_kernel

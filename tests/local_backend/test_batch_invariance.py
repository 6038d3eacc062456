"""The real model in its default form: a row's logits are the same bits in a pass of any size."""

import torch

from local_backend.engine.latents import Extent, LatentPool
from local_backend.kernels.cpu_int4 import CPU_ROWS
from local_backend.weights.load import load_model
from local_backend.weights.prepare import ModelFolder

CPU = torch.device("cpu")
SIZE = 64


@torch.inference_mode()
def test_a_row_is_the_same_bits_in_every_batch(bundled: ModelFolder) -> None:
    model = load_model(bundled.path, 256, CPU, torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    pool = LatentPool(model.config, 4 * CPU_ROWS, SIZE, CPU)
    lengths = torch.randint(1, 150, (CPU_ROWS,), generator=generator).tolist()
    ids = torch.randint(0, 49152, (CPU_ROWS, 151), generator=generator)
    scattered = torch.randperm(4 * CPU_ROWS, generator=generator).view(CPU_ROWS, 4).tolist()
    for row, length in enumerate(lengths):
        for start in range(0, length, SIZE):
            end = min(start + SIZE, length)
            view = pool.view([Extent(scattered[row], start, end)])
            model(ids[row : row + 1, start:end], torch.arange(start, end)[None], view)

    def decode(rows: list[int]) -> torch.Tensor:
        extents = [Extent(scattered[row], lengths[row], lengths[row] + 1) for row in rows]
        positions = torch.tensor([[lengths[row]] for row in rows])
        tokens = ids[rows].gather(1, positions)
        return model.logits(model(tokens, positions, pool.view(extents))[:, -1])

    alone = torch.cat([decode([row]) for row in range(CPU_ROWS)])
    for count in (2, 5, 8, 17, CPU_ROWS):
        rows = torch.randperm(CPU_ROWS, generator=generator)[:count].tolist()
        assert torch.equal(decode(rows), alone[rows]), count

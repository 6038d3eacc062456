"""One process of a parallel group; a module of its own, so that starting it imports little."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed

from local_backend.parallel.group import ParallelGroup
from local_backend.weights.load import load_model
from tests.local_backend.oracle import run


def compute(rank: int, store: Path, folders: list[Path], ids: torch.Tensor, results: Any) -> None:
    """Put (rank, parameters held, logits) for each model."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    group = ParallelGroup.current()
    for folder in folders:
        model = load_model(folder, 128, torch.device("cpu"), torch.float32, group=group)
        held = sum(parameter.numel() for layer in model.layers for parameter in layer.parameters())
        with torch.inference_mode():
            logits = run(model, ids, [8] + [1] * (ids.shape[1] - 8), absorbed=True)
        results.put((rank, held, logits.numpy()))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()

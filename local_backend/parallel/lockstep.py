"""Several processes run each forward pass together: the first one leads, the others repeat what it runs.

Before a pass the leader tells which tokens run and where their latents lie; everything else, the weights'
shares and the cache, every process has already. Sampling and HTTP are the leader's alone.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from local_backend.engine.latents import Extent, LatentPool, PagedView
from local_backend.errors import ConfigError
from local_backend.model.model import DeepseekV3
from local_backend.parallel.group import ParallelGroup

# An idle server tells nothing, and nobody may give up waiting for it.
_PATIENCE = timedelta(days=365)
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Pass:
    """Tokens to run, [rows, tokens], and the extent of each row."""

    ids: Sequence[Sequence[int]]
    extents: Sequence[Extent]


def join(device: torch.device) -> ParallelGroup:
    """Join the group that torchrun describes in the environment; without it this process is alone.

    Raises ConfigError for one GPU of several, as each process takes that of its rank.
    """
    if "WORLD_SIZE" not in os.environ:
        return ParallelGroup()
    if device.index is not None:
        raise ConfigError(f"--device {device} is for one process; several take a GPU each with --device cuda")
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    torch.distributed.init_process_group(backend, timeout=_PATIENCE)
    return ParallelGroup.current()


def lead(model: DeepseekV3) -> None:
    """Tell the others of each of the model's passes, from now on."""
    model.register_forward_pre_hook(_announce)


def dismiss() -> None:
    """Let the others end."""
    _broadcast(None)


def follow(model: DeepseekV3, latents: LatentPool) -> None:
    """Repeat the leader's passes until it dismisses us."""
    while (step := _broadcast(None)) is not None:
        _repeat(model, latents, step)


@torch.inference_mode()
def _repeat(model: DeepseekV3, latents: LatentPool, step: Pass) -> None:
    device = latents.planes.device
    positions = [list(range(extent.start, extent.end)) for extent in step.extents]
    ids = torch.tensor(step.ids, device=device)
    model(ids, torch.tensor(positions, device=device), latents.view(step.extents))


def _announce(_: nn.Module, arguments: tuple[Any, ...]) -> None:
    ids: Tensor = arguments[0]
    view: PagedView = arguments[2]
    _broadcast(Pass(ids.tolist(), view.extents))


def _broadcast(step: Pass | None) -> Pass | None:
    """What the leader gives; the others' argument does not matter."""
    slot = [step]
    torch.distributed.broadcast_object_list(slot, src=0, device=_CPU)
    return slot[0]

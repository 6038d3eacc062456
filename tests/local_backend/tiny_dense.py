"""A tiny dense Llama, converted as the bundled model is, for what starts from a folder of profile `exact`."""

from pathlib import Path

import torch

from local_backend.compress.activations import Activations, observe
from local_backend.compress.student import Plan, Shape, make_plan
from local_backend.model.model import DeepseekV3
from local_backend.weights.deepseek_io import Checkpoint
from local_backend.weights.load import load_config, load_model
from local_backend.weights.prepare import prepare_model
from local_backend.weights.progress import silent
from tests.local_backend.test_conversion import CONTEXT, TOKENS, dense_model, write_gguf

CPU = torch.device("cpu")


def exact_folder(work: Path) -> Path:
    write_gguf(dense_model(), work / "dense.gguf")
    return prepare_model(str(work / "dense.gguf"), "exact", work / "cache", silent).path


def load(folder: Path) -> DeepseekV3:
    return load_model(folder, CONTEXT, CPU, torch.float32)


def texts(count: int, length: int = CONTEXT, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(len(TOKENS), (length,), generator=generator) for _ in range(count)]


def observed(folder: Path) -> Activations:
    return observe(load(folder), texts(16), silent, attention=True, feed_forward=True)


def plan(folder: Path, shape: Shape) -> Plan:
    seen = observed(folder)
    with Checkpoint(folder) as checkpoint:
        return make_plan(checkpoint, load_config(folder), seen, shape, silent)

"""The model that a command measures, loaded as `serve` would load it."""

import argparse
from dataclasses import dataclass

import torch

from local_backend.errors import ConfigError
from local_backend.launch import choose_device, choose_dtype, default_threads
from local_backend.model.model import DeepseekV3
from local_backend.weights.load import load_config, load_model
from local_backend.weights.prepare import prepare_model
from local_backend.weights.progress import StderrProgress
from local_backend.weights.repack import Quantization


@dataclass(frozen=True)
class Subject:
    """A loaded model and what it runs on."""

    name: str
    model: DeepseekV3
    device: torch.device
    dtype: torch.dtype


def load_subject(options: argparse.Namespace, length: int) -> Subject:
    """Load what --model, --profile, --device, --dtype, --quantization and --threads say."""
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    folder = prepare_model(options.model, options.profile, options.cache_dir, StderrProgress(), options.delta)
    limit = load_config(folder.path).max_position_embeddings
    if length > limit:
        raise ConfigError(f"--context {length} exceeds the model's {limit} positions")
    torch.set_num_threads(1)
    quantization = Quantization(options.quantization)
    model = load_model(folder.path, length, device, dtype, quantization=quantization)
    torch.set_num_threads(options.threads or default_threads())
    return Subject(f"{folder.model_id} ({options.profile})", model, device, dtype)

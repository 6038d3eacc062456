"""Puts the server together: model folder, device, model, engine, application."""

import hashlib
import logging
import os
import signal
import socket
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from local_backend.apart import apart
from local_backend.clock import now
from local_backend.engine.decode_graphs import DecodeGraphs, can_record
from local_backend.engine.engine import Engine
from local_backend.engine.latents import LatentFormat, LatentPool
from local_backend.engine.options import EngineOptions
from local_backend.engine.runner import ModelRunner
from local_backend.engine.scheduler import SchedulerOptions
from local_backend.engine.structured import GrammarCompiler
from local_backend.errors import ConfigError
from local_backend.kernels.cpu_int4 import CPU_ROWS
from local_backend.lengths import BLOCK_SIZE, Lengths
from local_backend.measure.gauge import find_gauge
from local_backend.model.long_context import Extension
from local_backend.model.model import DeepseekV3
from local_backend.parallel import lockstep
from local_backend.parallel.group import ParallelGroup
from local_backend.serve import server
from local_backend.serve.job import ModelFacts, ServedModel
from local_backend.serve.logs import configure_logging
from local_backend.serve.metrics import Metrics
from local_backend.serve.openai import Service, build_app
from local_backend.serve.tokenizer import Tokenizer
from local_backend.weights import deepseek_io
from local_backend.weights.load import activation_dtype, load_config, load_model
from local_backend.weights.prepare import ModelFolder, prepare_model
from local_backend.weights.progress import StderrProgress
from local_backend.weights.repack import Quantization

log = logging.getLogger(__name__)

_GIB = 1 << 30
_KEPT = {"float32": torch.float32, "bfloat16": torch.bfloat16, "fp8": torch.uint8}


@dataclass(frozen=True)
class ServeOptions:
    """What `serve` was asked for; lengths in tokens, `cache_memory` in GiB, times in seconds."""

    model: str
    profile: str
    delta: Path | None
    cache_dir: Path
    device: str
    dtype: str
    quantization: str
    threads: int | None
    max_concurrency: int
    max_queue: int
    max_length: int | None
    extend: str
    window: int | None
    cache_memory: float
    cache_dtype: str
    default_max_tokens: int
    drain: float
    watts: float | None
    started: float


@dataclass(frozen=True)
class Loaded:
    """A model in memory, as much of it as this process holds, and the memory of its cache."""

    folder: ModelFolder
    model: DeepseekV3
    latents: LatentPool
    lengths: Lengths
    device: torch.device
    dtype: torch.dtype
    group: ParallelGroup


def serve(options: ServeOptions, sock: socket.socket) -> None:
    """Prepare, load and serve until a signal. Raises BackendError with a message for the user."""
    loaded = load(options)
    service = build_service(loaded, options)
    facts = {
        "device": str(loaded.device),
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "processes": loaded.group.size,
    }
    log.info("loaded", extra={"facts": {**facts, "seconds": round(now() - options.started, 2)}})
    if loaded.group.size > 1:
        lockstep.lead(loaded.model)
    try:
        server.run(build_app(service), service.engine, sock, options.drain)
    finally:
        if loaded.group.size > 1:
            lockstep.dismiss()


def follow(options: ServeOptions) -> None:
    """Hold a share of the model for the process that serves, until it ends."""
    # torchrun signals all its processes; the leader still needs us while it drains.
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    loaded = load(options)
    lockstep.follow(loaded.model, loaded.latents)


def load(options: ServeOptions) -> Loaded:
    """Load the model, or this process's share of it."""
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    group = lockstep.join(device)
    folder = apart(
        lambda: prepare_model(
            options.model, options.profile, options.cache_dir, StderrProgress(), options.delta
        )
    )
    configure_logging()
    # Loading has threads of its own, which must not each start a team of torch's.
    torch.set_num_threads(1)
    config = load_config(folder.path)
    extension, trained = Extension(options.extend), config.max_position_embeddings
    lengths = Lengths.of(extension, trained, options.max_length, options.window)
    model = load_model(
        folder.path,
        lengths.kept,
        device,
        dtype,
        quantization=Quantization(options.quantization),
        extension=extension,
        group=group,
    )
    activations = activation_dtype(device, dtype)
    form = LatentFormat(_KEPT.get(options.cache_dtype, activations), activations)
    blocks = int(options.cache_memory * _GIB / form.block_bytes(config, BLOCK_SIZE))
    if blocks * BLOCK_SIZE < lengths.kept:
        raise ConfigError(
            f"--cache-memory {options.cache_memory} holds {blocks * BLOCK_SIZE} tokens, a sequence may have "
            f"{lengths.kept}; give it more memory or a smaller "
            f"{'--window' if lengths.slides else '--max-length'}"
        )
    latents = LatentPool(config, blocks, BLOCK_SIZE, device, form)
    torch.set_num_threads(options.threads or default_threads())
    return Loaded(folder, model, latents, lengths, device, dtype, group)


def build_service(loaded: Loaded, options: ServeOptions) -> Service:
    """Wire everything behind the endpoints."""
    config, folder, device, dtype = loaded.model.config, loaded.folder, loaded.device, loaded.dtype
    scheduling = choose_scheduling(options.max_concurrency, device, dtype)
    engine_options = EngineOptions(
        max_queue=options.max_queue,
        max_length=loaded.lengths.longest,
        vocab_size=config.vocab_size,
        eos_token_ids=config.eos_token_ids,
        blocks=loaded.latents.spare,
        block_size=BLOCK_SIZE,
        model=folder.model_id,
        scheduling=replace(scheduling, window=loaded.lengths.window(scheduling.chunk)),
        gauge=find_gauge(device, loaded.group.size, options.watts),
    )
    engine = Engine(build_runner(loaded, options.max_concurrency), engine_options)
    generation = folder.path / deepseek_io.GENERATION_CONFIG
    fingerprint = hashlib.sha256(f"{folder.path.name}:{dtype}:{torch.__version__}".encode()).hexdigest()[:10]
    facts = ModelFacts(
        model_id=folder.model_id,
        max_length=loaded.lengths.longest,
        default_max_tokens=options.default_max_tokens,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        sampling_defaults=deepseek_io.read_json(generation) if generation.exists() else {},
        fingerprint=fingerprint,
    )
    tokenizer = folder.path / deepseek_io.TOKENIZER
    grammars = GrammarCompiler(tokenizer, config.vocab_size, config.eos_token_ids)
    return Service(engine, ServedModel(facts, Tokenizer(folder.path), grammars), Metrics(engine))


def build_runner(loaded: Loaded, max_concurrency: int) -> ModelRunner:
    """Run the model, its decoding as CUDA graphs where nothing stands against it."""
    model, latents, device = loaded.model, loaded.latents, loaded.device
    rows = CPU_ROWS if device.type == "cpu" else max_concurrency
    graphs = None
    is_plain = loaded.group.size == 1 and model.config.dual_chunk is None and not model.config.sinks
    if is_plain and latents.has_paged_kernel and can_record(device):
        graphs = DecodeGraphs(model, latents, rows, -(-loaded.lengths.kept // BLOCK_SIZE))
    return ModelRunner(model, latents, device, rows, graphs)


def choose_device(name: str) -> torch.device:
    """The device for `auto`, `cpu`, `cuda` or `cuda:N`. Raises ConfigError when CUDA's is missing."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(f"--device {name}: torch sees no CUDA device here; use --device cpu or auto")
        if device.index is not None:
            if device.index >= (count := torch.cuda.device_count()):
                raise ConfigError(f"--device {name}: torch sees {count} CUDA devices here, from cuda:0 on")
            torch.cuda.set_device(device)  # kernels start on the current one
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype for `auto`, `float32` or `bfloat16`; auto is bfloat16 where it is native."""
    if name == "auto":
        native = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()  # noqa: SLF001
        name = "bfloat16" if native else "float32"
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def choose_scheduling(concurrency: int, device: torch.device, dtype: torch.dtype) -> SchedulerOptions:
    """Small steps on a CPU; with bfloat16 there, only what rounds alike is shared."""
    if device.type == "cpu":
        return SchedulerOptions(concurrency, share_answers=dtype == torch.float32)
    return SchedulerOptions(concurrency, prefill_budget=2048, chunk=512, replay=64, share_answers=True)


def default_threads() -> int:
    """One core fewer than there are, for the HTTP side and the gateway.

    Torch's threads wait for each other at every product, so one of them that shares its core stalls all.
    """
    return max(1, len(os.sched_getaffinity(0)) - 1)

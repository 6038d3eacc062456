"""Loads a DeepSeek-V3 folder into the model, choosing how each matrix is stored on this device."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn

from local_backend.errors import WeightsError
from local_backend.kernels.cpu_head import CpuHead
from local_backend.kernels.cpu_int4 import CpuProjection
from local_backend.model.config import DeepseekConfig
from local_backend.model.linear import Projection
from local_backend.model.model import DeepseekV3
from local_backend.model.moe import Router
from local_backend.weights.deepseek_io import CONFIG, Checkpoint, read_json

# Layers are read and repacked side by side; more threads would only hold more float32 copies at once.
_LOADERS = 4


def load_config(folder: Path) -> DeepseekConfig:
    """The hyperparameters of a model folder."""
    return DeepseekConfig.from_dict(read_json(folder / CONFIG))


def activation_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The dtype of hidden states and cache: on a CPU only the big products use less than float32."""
    return torch.float32 if device.type == "cpu" else dtype


def load_model(folder: Path, max_length: int, device: torch.device, dtype: torch.dtype) -> DeepseekV3:
    """Read the weights of `folder` into a model on `device`, with the big products in `dtype`.

    The router is always float32. Raises WeightsError when a tensor is missing or of the wrong shape.
    """
    config = load_config(folder)
    model = DeepseekV3(config, max_length, device)
    activations = activation_dtype(device, dtype)
    reduce = device.type == "cpu" and dtype == torch.bfloat16
    with Checkpoint(folder) as checkpoint, ThreadPoolExecutor(_LOADERS) as pool:

        def load_layer(index: int, layer: nn.Module) -> None:
            _fill(layer, dict(_layer_tensors(checkpoint, config, index)))
            _place(layer, device, activations)
            if reduce:
                _reduce(layer)

        # Consumed, so that a layer's error is raised here.
        list(pool.map(load_layer, range(config.num_hidden_layers), model.layers))
        _fill(model.embed_tokens, {"weight": checkpoint["model.embed_tokens.weight"]})
        _fill(model.norm, {"weight": checkpoint["model.norm.weight"]})
        _place(model.embed_tokens, device, activations)
        _place(model.norm, device, activations)
        if config.tie_word_embeddings:
            _fill(model.lm_head, {"weight": model.embed_tokens.weight})
        else:
            _fill(model.lm_head, {"weight": checkpoint["lm_head.weight"]})
            _place(model.lm_head, device, activations)
    if reduce:
        model.lm_head = CpuHead(model.lm_head.get_parameter("weight").detach())
    return model.eval().requires_grad_(False)


def _layer_tensors(
    checkpoint: Checkpoint, config: DeepseekConfig, index: int
) -> Iterator[tuple[str, Tensor]]:
    """One layer's tensors under the names of DecoderLayer, with the experts' matrices joined."""
    prefix = f"model.layers.{index}."
    for name in ("input_layernorm.weight", "post_attention_layernorm.weight"):
        yield name, checkpoint[prefix + name]
    for name in checkpoint:
        if name.startswith(f"{prefix}self_attn."):
            yield name.removeprefix(prefix), checkpoint[name]
    mlp = f"{prefix}mlp."
    if index < config.first_k_dense_replace:
        sources = [mlp]
    else:
        experts = [f"{mlp}experts.{expert}." for expert in range(config.n_routed_experts)]
        sources = [f"{mlp}shared_experts.", *experts] if config.n_shared_experts else experts
        yield "mlp.gate.weight", checkpoint[f"{mlp}gate.weight"]
        yield "mlp.gate.e_score_correction_bias", checkpoint[f"{mlp}gate.e_score_correction_bias"]
    width = config.intermediate_size if index < config.first_k_dense_replace else config.moe_intermediate_size
    yield "mlp.gate_up.weight", torch.cat([_gate_up(checkpoint, source, width) for source in sources])
    yield "mlp.down.weight", torch.cat([checkpoint[f"{source}down_proj.weight"] for source in sources], dim=1)


def _gate_up(checkpoint: Checkpoint, source: str, width: int) -> Tensor:
    """gate_proj and up_proj [n * width, hidden] as n blocks of `width` gate rows and `width` up rows."""
    gate = torch.unflatten(checkpoint[f"{source}gate_proj.weight"], 0, (-1, width))
    up = torch.unflatten(checkpoint[f"{source}up_proj.weight"], 0, (-1, width))
    return torch.stack([gate, up], dim=1).flatten(0, 2)


def _fill(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    try:
        module.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise WeightsError(f"the checkpoint does not fit its config.json: {error}") from error


def _place(root: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    for module in root.modules():
        wanted = torch.float32 if isinstance(module, Router) else dtype
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.to(device, wanted)
        for buffer in module.buffers(recurse=False):
            buffer.data = buffer.data.to(device)


def _reduce(layer: nn.Module) -> None:
    """Give the CPU's kernels the projections of a layer."""
    for parent in list(layer.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Projection):
                setattr(parent, name, CpuProjection(child.weight.detach(), _detached(child.bias)))


def _detached(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.detach()

"""Loads a DeepSeek folder into the model, choosing how each matrix is stored on this device."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn

from local_backend.errors import WeightsError
from local_backend.kernels.cpu_head import CpuHead
from local_backend.model.config import DeepseekConfig
from local_backend.model.config_json import parse_config
from local_backend.model.long_context import Extension, extended
from local_backend.model.model import DeepseekV3
from local_backend.model.router import Router
from local_backend.parallel.group import ParallelGroup
from local_backend.parallel.layers import AllReduced
from local_backend.weights.deepseek_io import CONFIG, Checkpoint, read_json
from local_backend.weights.layers import LayerReader
from local_backend.weights.repack import Quantization, choose_quantization, repack

# Layers are read and repacked side by side; more threads would only hold more float32 copies at once.
_LOADERS = 4


def load_config(folder: Path) -> DeepseekConfig:
    """The hyperparameters of a model folder."""
    return parse_config(read_json(folder / CONFIG))


def activation_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """The dtype of hidden states and cache: on a CPU only the big products use less than float32."""
    return torch.float32 if device.type == "cpu" else dtype


def native_dtype(device: torch.device) -> torch.dtype:
    """The dtype for big products: bfloat16 where the hardware multiplies it."""
    native = device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()  # noqa: SLF001 - torch's only name for it
    return torch.bfloat16 if native else torch.float32


def load_model(  # noqa: PLR0913 - each is a choice of its own
    folder: Path,
    max_length: int,
    device: torch.device,
    dtype: torch.dtype,
    *,
    quantization: Quantization = Quantization.AUTO,
    extension: Extension = Extension.NONE,
    group: ParallelGroup = ParallelGroup(),  # noqa: B008 - frozen
) -> DeepseekV3:
    """Read the weights of `folder` into a model on `device`, with the big products in `dtype`.

    The router is always float32. A `max_length` beyond the trained length needs an extension. Raises
    WeightsError when a tensor is missing or of the wrong shape.
    """
    config = extended(load_config(folder), extension, max_length)
    model = DeepseekV3(config, max_length, device, group)
    activations = activation_dtype(device, dtype)
    form = choose_quantization(quantization, device, config.weight_block_size)
    with Checkpoint(folder, config.weight_block_size) as checkpoint, ThreadPoolExecutor(_LOADERS) as pool:

        def load_layer(index: int, layer: nn.Module) -> None:
            _fill(layer, dict(LayerReader(checkpoint, config, index, group).tensors(layer)))
            _place(layer, device, activations)
            repack(layer, device, dtype, form)
            if group.size > 1:
                layer.self_attn = AllReduced(layer.get_submodule("self_attn"), group)
                layer.mlp = AllReduced(layer.get_submodule("mlp"), group)

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
    if device.type == "cpu" and dtype == torch.bfloat16:
        model.lm_head = CpuHead(model.lm_head.get_parameter("weight").detach())
    return model.eval().requires_grad_(False)


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
            buffer.data = buffer.data.to(device, wanted)

"""What a model's layers see of a text: second moments for attention, samples for the experts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from local_backend.engine.latents import LatentPool
from local_backend.model.model import DeepseekV3
from local_backend.weights.progress import Progress


@dataclass(frozen=True)
class Activations:
    """Of each layer: moments are E[x x^T] of attention's inputs, float64 [hidden, hidden].

    samples are inputs of the FFN, bfloat16 [tokens, hidden]; empty unless they were asked for.
    """

    moments: list[Tensor]
    samples: list[Tensor]


@torch.inference_mode()
def observe(
    model: DeepseekV3, texts: Sequence[Tensor], progress: Progress, *, with_samples: bool
) -> Activations:
    """Run the texts, int64 [tokens] each, through the model."""
    layers = len(model.layers)
    hidden = model.config.hidden_size
    sums = [torch.zeros(hidden, hidden, dtype=torch.float64) for _ in range(layers)]
    samples: list[list[Tensor]] = [[] for _ in range(layers)]

    def attention_input(layer: int, x: Tensor) -> None:
        sums[layer] += (x.T @ x).double().cpu()

    def feed_forward_input(layer: int, x: Tensor) -> None:
        if with_samples:
            samples[layer].append(x.bfloat16().cpu())

    def watch(norm: nn.Module, see: Callable[[int, Tensor], None], layer: int) -> RemovableHandle:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            see(layer, output.flatten(0, 1).float())

        return norm.register_forward_hook(hook)

    handles = []
    for index, each in enumerate(model.layers):
        handles.append(watch(each.get_submodule("input_layernorm"), attention_input, index))
        handles.append(watch(each.get_submodule("post_attention_layernorm"), feed_forward_input, index))
    device = model.embed_tokens.weight.device
    try:
        for done, ids in enumerate(texts):
            progress("observing the model", done, len(texts))
            pool = LatentPool(model.config, 1, len(ids), device)
            positions = torch.arange(len(ids), device=device)[None]
            model(ids[None].to(device), positions, pool.rows([0], 0, len(ids)))
    finally:
        for handle in handles:
            handle.remove()
    progress("observing the model", len(texts), len(texts))
    tokens = sum(len(ids) for ids in texts)
    return Activations([each / tokens for each in sums], [torch.cat(each) for each in samples if each])

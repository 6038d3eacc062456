"""What a model's layers see of a text: the inputs of attention and of the feed-forward parts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from local_backend.engine.latents import LatentPool
from local_backend.model.model import DeepseekV3
from local_backend.weights.progress import Progress


@dataclass(frozen=True)
class Activations:
    """Of each layer, bfloat16: attention [texts, tokens, hidden], feed_forward [all tokens, hidden].

    A list is empty unless it was asked for.
    """

    attention: list[Tensor]
    feed_forward: list[Tensor]


@torch.inference_mode()
def observe(
    model: DeepseekV3, texts: Sequence[Tensor], progress: Progress, *, attention: bool, feed_forward: bool
) -> Activations:
    """Run the texts, int64 [tokens] each and all of a length, through the model."""
    attended: list[list[Tensor]] = [[] for _ in model.layers]
    fed: list[list[Tensor]] = [[] for _ in model.layers]

    def keep(norm: nn.Module, inputs: list[Tensor]) -> RemovableHandle:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            inputs.append(output[0].bfloat16().cpu())

        return norm.register_forward_hook(hook)

    handles = []
    for index, each in enumerate(model.layers):
        if attention:
            handles.append(keep(each.get_submodule("input_layernorm"), attended[index]))
        if feed_forward:
            handles.append(keep(each.get_submodule("post_attention_layernorm"), fed[index]))
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
    return Activations(
        [torch.stack(each) for each in attended if each], [torch.cat(each) for each in fed if each]
    )

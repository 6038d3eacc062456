"""The student while it learns: the served model's own code, its latents kept where gradients reach them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from local_backend.distill.low_rank import FrozenProjection, adapt
from local_backend.kernels.mla_decode import Pages
from local_backend.model.model import DeepseekV3
from local_backend.weights.load import native_dtype

# Trained whole; everything else by a low-rank addition, or not at all.
_WHOLE = ("input_layernorm.weight", "post_attention_layernorm.weight", "mlp.gate.weight")
_LATENT = "kv_b_proj.weight"


class FreshLatents:
    """A LatentView of texts that are run whole, from their first token."""

    def __init__(self, rows: int, length: int) -> None:
        self.lengths: Sequence[int] = [length] * rows
        self.evicted: Sequence[int] = [0] * rows
        self._latents: dict[int, Tensor] = {}

    def write(self, layer: int, latents: Tensor) -> None:
        self._latents[layer] = latents

    def read(self, layer: int, row: int) -> Tensor:
        return self._latents[layer][row]

    def pages(self, layer: int) -> Pages | None:
        """Nothing is paged."""
        del layer
        return None


def make_trainable(model: DeepseekV3, rank: int, seed: int) -> dict[str, nn.Parameter]:
    """Add the low-rank parts; the parameters to train, by name.

    kv_b_proj is trained where attention is compressed; in the exact form it only sorts values to heads.
    """
    whole = (*_WHOLE, _LATENT) if model.config.qk_nope_head_dim else _WHOLE
    dtype = native_dtype(model.embed_tokens.weight.device)
    for layer in model.layers:
        adapt(layer, rank, seed, dtype)
    model.lm_head = FrozenProjection(model.lm_head.get_parameter("weight"), dtype)
    trained = {}
    for name, parameter in model.named_parameters():
        is_low_rank = name.endswith((".a", ".b"))
        parameter.requires_grad_(is_low_rank or name.endswith(whole))
        if parameter.requires_grad:
            trained[name] = parameter
    return trained


def log_probabilities(model: DeepseekV3, ids: Tensor) -> Tensor:
    """After each token of ids [rows, tokens], float32 [rows, tokens, vocab]."""
    rows, length = ids.shape
    positions = torch.arange(length, device=ids.device).expand(rows, -1)
    hidden = model(ids, positions, FreshLatents(rows, length))
    return functional.log_softmax(model.logits(hidden), -1)


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean KL(teacher || student) a token, of log-probabilities [.., vocab]."""
    return (teacher.exp() * (teacher - student)).sum(-1).mean()

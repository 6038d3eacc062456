"""How far a form of a model is from another: perplexity and KL divergence on the same text."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor
from torch.nn import functional

from local_backend.engine.latents import LatentFormat, LatentPool
from local_backend.model.model import DeepseekV3

CHUNK = 512
_FLOAT32 = LatentFormat()


@dataclass(frozen=True)
class Judged:
    """A text seen by a model: log-probabilities after its first tokens, and the loss of every token."""

    first: Tensor
    losses: Tensor

    def perplexity(self, length: int) -> float:
        """Over the first `length` tokens."""
        return math.exp(self.losses[: length - 1].mean())


def judge(model: DeepseekV3, ids: Tensor, form: LatentFormat = _FLOAT32) -> Judged:
    """Run a text, int64 [tokens]."""
    chunks = log_probabilities(model, form, ids)
    first = next(chunks)
    return Judged(first, losses(chain([first], chunks), ids))


def divergence(base: Sequence[Judged], other: Sequence[Judged]) -> float:
    """Mean KL(base || other) a token, over the first 512 tokens of each text."""
    pairs = zip(base, other, strict=True)
    return float(torch.cat([(a.first.exp() * (a.first - b.first)).sum(-1) for a, b in pairs]).mean())


@torch.inference_mode()
def log_probabilities(model: DeepseekV3, form: LatentFormat, ids: Tensor) -> Iterator[Tensor]:
    """The log-probabilities after each token but the last, [tokens, vocab] on the CPU, chunk after chunk."""
    device = model.embed_tokens.weight.device
    pool = LatentPool(model.config, 1, len(ids), device, form)
    for start in range(0, len(ids) - 1, CHUNK):
        end = min(start + CHUNK, len(ids) - 1)
        view = pool.rows([0], start, end)
        positions = torch.arange(start, end, device=device)[None]
        hidden = model(ids[None, start:end].to(device), positions, view)
        yield functional.log_softmax(model.logits(hidden[0]), -1).cpu()


def losses(chunks: Iterator[Tensor], ids: Tensor) -> Tensor:
    """The negative log-probability of each token but the first."""
    following = torch.split(ids[1:], CHUNK)
    return torch.cat(
        [-chunk.gather(1, tokens[:, None])[:, 0] for chunk, tokens in zip(chunks, following, strict=True)]
    )

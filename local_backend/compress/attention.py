"""What a dense layer's attention looks at: the tokens that weigh most, and how far away they stand.

Errors of a key or a value count as often as the token is attended to. In most layers the first token of a
text takes a large part of all attention (an attention sink, arXiv 2309.17453): among 2,000 equal tokens it
would hardly count, and long texts would suffer most.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from local_backend.compress.dense import DenseLayer
from local_backend.model.rope import rotate


@dataclass(frozen=True)
class Attended:
    """Float64 moments of attention's inputs.

    queries: E[x x^T] over all tokens. keys, mean: the same and E[x], weighted by the attention that a token
    gets. turns: by how much, on average, a pair of a query is turned against that of a key that matters to
    it, complex128 [heads, pairs]; the average of unlike turns is shorter than 1. strength: how much the pair
    adds to scores there, [heads, pairs].
    """

    queries: Tensor
    keys: Tensor
    mean: Tensor
    turns: Tensor
    strength: Tensor


@torch.inference_mode()
def attend(layer: DenseLayer, inputs: Tensor, frequencies: Tensor) -> Attended:
    """Inputs [texts, tokens, hidden]; frequencies [pairs]."""
    heads, tokens = len(layer.query), inputs.shape[1]
    angles = torch.arange(tokens)[:, None] * frequencies.double()
    rotary = angles.cos().float(), angles.sin().float()
    hidden_from = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    weights = torch.zeros(len(inputs), tokens)
    turned = torch.zeros(heads, len(frequencies), dtype=torch.complex128)
    strength = torch.zeros(heads, len(frequencies), dtype=torch.float64)
    for text, x in enumerate(inputs.float()):
        for head, group in enumerate(layer.group_of_head.tolist()):
            query, key = x @ layer.query[head].T, x @ layer.key[group].T
            scores = rotate(query, *rotary, True) @ rotate(key, *rotary, True).T
            scores *= layer.query.shape[1] ** -0.5
            attention = scores.masked_fill_(hidden_from, float("-inf")).softmax(-1)
            weights[text] += attention.sum(0)
            # How much a score matters: the slope of the softmax.
            attention *= 1 - attention
            sums = _meetings(attention, query, key, rotary)
            turned[head] += sums[0]
            strength[head] += sums[1]
    x = inputs.flatten(0, 1).double()
    share = (weights / weights.sum()).flatten().double()
    return Attended(
        queries=x.T @ x / len(x),
        keys=(x * share[:, None]).T @ x,
        mean=share @ x,
        turns=turned / strength,
        strength=strength,
    )


def _meetings(
    weights: Tensor, query: Tensor, key: Tensor, rotary: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """For each pair, over all queries and keys: the sum of weight * |q|^2 |k|^2 * turn, and without turns."""
    query_power, key_power = (torch.unflatten(each, -1, (-1, 2)).square().sum(-1) for each in (query, key))
    cos, sin = rotary
    met = weights @ torch.cat([cos * key_power, sin * key_power, key_power], dim=1)
    met_cos, met_sin, plain = (query_power * each for each in met.double().chunk(3, dim=1))
    turned = torch.complex(cos * met_cos + sin * met_sin, sin * met_cos - cos * met_sin)
    return turned.sum(0), plain.sum(0)

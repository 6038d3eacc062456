"""Compresses grouped-query attention into MLA's latent and a narrow rotary key.

First a rotation of each frequency's key pair across the KV heads, as complex numbers and weighted by the
queries that meet it, gathers what attention needs in few pairs; pairs that keep RoPE are chosen for the whole
model, since all layers share one table of frequencies. What is left of the keys loses its rotation, and goes
with the values into the latent by a PCA in the metric of what it does to scores and outputs. This follows
TransMLA (arXiv 2502.07864), which weighs neither.

Tokens count by the attention that they get. A pair that loses its rotation is turned by the mean of the turns
at which it mattered and shortened as much as they differ, head by head: that is the nearest constant. What
all keys have in common changes no softmax, and what all values have in common is a bias of the output, so
neither takes place in the latent.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from local_backend.compress.attention import Attended
from local_backend.compress.dense import DenseLayer

# How much an error of the scores counts against one of the values.
_SCORE_WEIGHT = 0.7
_RIDGE = 1e-9

Pair = tuple[int, int]
"""A frequency and a principal component of the KV heads at it."""


@dataclass(frozen=True)
class PairBasis:
    """Of each frequency: mix takes components to KV heads, unmix back; complex128 [pairs, groups, groups].

    energy is each component's part in the scores, [pairs, groups].
    """

    mix: Tensor
    unmix: Tensor
    energy: Tensor


@dataclass(frozen=True)
class LatentPlan:
    """One layer: mix is of PairBasis, turns of Attended.

    kv_a [rank + rotary, hidden], kv_b [heads, nope + value, rank], output_bias [hidden], float32.
    """

    mix: Tensor
    turns: Tensor
    kv_a: Tensor
    kv_b: Tensor
    output_bias: Tensor


def pair_basis(layer: DenseLayer, attended: Attended) -> PairBasis:
    """The principal components of the key pairs across KV heads."""
    keys, queries = as_pairs(layer.key), as_pairs(layer.query)
    met = torch.einsum("hid,de,hie->hi", queries, attended.queries.to(keys.dtype), queries.conj()).real
    weights = met.view(layer.groups, -1, met.shape[1]).sum(1).clamp_min(1e-30)
    scaled = keys * weights.sqrt()[:, :, None]
    covered = torch.einsum("gid,de,kie->igk", scaled, attended.keys.to(keys.dtype), scaled.conj())
    energy, vectors = torch.linalg.eigh(covered)
    energy, vectors = energy.flip(-1), vectors.flip(-1)
    root = weights.sqrt().T
    mix = vectors / root[:, :, None]
    unmix = vectors.mH * root[:, None, :]
    return PairBasis(mix, unmix, energy)


def choose_pairs(bases: list[PairBasis], attended: list[Attended], count: int) -> list[Pair]:
    """The `count` pairs whose rotation the whole model misses most."""
    missed = torch.zeros_like(bases[0].energy)
    for basis, each in zip(bases, attended, strict=True):
        kept = (each.turns.abs().square() * each.strength).sum(0) / each.strength.sum(0)
        missed += basis.energy / basis.energy.sum() * (1 - kept)[:, None]
    best = missed.flatten().argsort(descending=True)[:count]
    return sorted((int(index) // missed.shape[1], int(index) % missed.shape[1]) for index in best)


def queries(layer: DenseLayer, plan: LatentPlan, pairs: list[Pair]) -> tuple[Tensor, Tensor]:
    """Those that meet the latent, and those that meet the chosen pairs, float64 [heads, *, hidden]."""
    dense, groups, mix = as_pairs(layer.query), layer.group_of_head, plan.mix.to(torch.complex128)
    chosen = [dense[:, at] * mix[at, groups, component].conj()[:, None] for at, component in pairs]
    return _turned(layer, plan.turns), as_rows(torch.stack(chosen, dim=1))


def compressed(
    layer: DenseLayer, attended: Attended, basis: PairBasis, pairs: list[Pair], rank: int
) -> LatentPlan:
    """The layer with a latent of `rank`, DeepSeek's constant not counted."""
    keys = torch.einsum("ijg,gid->ijd", basis.unmix, as_pairs(layer.key))
    rotary = as_rows(torch.stack([keys[at, component] for at, component in pairs]))
    lost = torch.ones(keys.shape[:2], dtype=torch.bool)
    for at, component in pairs:
        lost[at, component] = False
    rest = as_rows(torch.einsum("igj,ijd,ij->gid", basis.mix, keys, lost.to(keys.dtype)))
    spread = attended.keys - torch.outer(attended.mean, attended.mean)
    down, up_key, up_value = _joint_pca(layer, attended, spread, rest, rank)
    groups = layer.group_of_head
    common = torch.einsum("god,d->go", layer.value.double() - up_value @ down, attended.mean)
    up = torch.cat([up_key[groups], up_value[groups]], dim=1)
    # Coordinates of size 1 on average, whatever the metric's units.
    scale = ((down @ attended.keys) * down).sum(1).mean().sqrt()
    return LatentPlan(
        mix=basis.mix.to(torch.complex64),
        turns=attended.turns.to(torch.complex64),
        kv_a=torch.cat([down / scale, rotary]).float(),
        kv_b=(up * scale).float(),
        output_bias=torch.einsum("iho,ho->i", layer.output.double(), common[groups]).float(),
    )


def as_pairs(weight: Tensor) -> Tensor:
    """Interleaved rotary rows [.., head_dim, hidden] -> complex128 [.., head_dim / 2, hidden]."""
    parts = torch.unflatten(weight.double(), -2, (-1, 2))
    return torch.complex(parts[..., 0, :].contiguous(), parts[..., 1, :].contiguous())


def as_rows(pairs: Tensor) -> Tensor:
    """The way back."""
    return torch.stack((pairs.real, pairs.imag), -2).flatten(-3, -2)


def _turned(layer: DenseLayer, turns: Tensor) -> Tensor:
    return as_rows(as_pairs(layer.query) * turns.to(torch.complex128)[:, :, None])


def _joint_pca(
    layer: DenseLayer, attended: Attended, spread: Tensor, keys: Tensor, rank: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Down [rank, hidden], and up to keys and to values, [groups, head_dim, rank] each."""
    heads, head_dim = layer.query.shape[:2]
    size = layer.groups * head_dim
    key_metric = torch.zeros(size, size, dtype=torch.float64)
    value_metric = torch.zeros(size, size, dtype=torch.float64)
    turned = _turned(layer, attended.turns)
    for head, group in enumerate(layer.group_of_head.tolist()):
        block = slice(group * head_dim, (group + 1) * head_dim)
        query, output = turned[head], layer.output[:, head].double()
        key_metric[block, block] += query @ attended.queries @ query.T / head_dim
        value_metric[block, block] += output.T @ output
    flat_keys, flat_values = keys.flatten(0, 1), layer.value.double().flatten(0, 1)
    output_energy = torch.einsum("ij,ja,ab,ib->", value_metric, flat_values, spread, flat_values) / heads
    key_metric += _RIDGE * key_metric.trace() * torch.eye(size)
    key_root, key_inverse = _roots(key_metric)
    value_root, value_inverse = _roots(value_metric)
    weight = _SCORE_WEIGHT * math.sqrt(float(output_energy))
    joined = torch.cat([weight * key_root @ flat_keys, value_root @ flat_values])
    basis = torch.linalg.svd(joined @ _roots(spread)[0])[0][:, :rank]
    up_key = (key_inverse / weight @ basis[:size]).view(layer.groups, head_dim, -1)
    up_value = (value_inverse @ basis[size:]).view(layer.groups, head_dim, -1)
    return basis.T @ joined, up_key, up_value


def _roots(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The square root of a symmetric matrix and its inverse, with small eigenvalues lifted."""
    values, vectors = torch.linalg.eigh(matrix)
    root = values.clamp_min(1e-6 * values.max()).sqrt()
    return (vectors * root) @ vectors.T, (vectors / root) @ vectors.T

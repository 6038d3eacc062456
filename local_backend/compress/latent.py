"""Compresses grouped-query attention into MLA's latent and a narrow rotary key.

First a rotation of each frequency's key pair across the KV heads, as complex numbers and weighted by the
queries that meet it, gathers what attention needs in few pairs; pairs that keep RoPE are chosen for the whole
model, since all layers share one table of frequencies. What is left of the keys loses its rotation, and goes
with the values into the latent by a PCA in the metric of what it does to scores and outputs. This follows
TransMLA (arXiv 2502.07864), which weighs neither.

A pair that loses its rotation is right only near by, so pairs are chosen by how far it would have turned at a
mean distance: with a small one a model looks well at 512 tokens and fails at 2,048.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from local_backend.compress.dense import DenseLayer

MEAN_DISTANCE = 512.0
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


def pair_basis(layer: DenseLayer, moment: Tensor) -> PairBasis:
    """The principal components of the key pairs across KV heads, under inputs with E[x x^T] = moment."""
    second = moment.to(torch.complex128)
    keys, queries = as_pairs(layer.key), as_pairs(layer.query)
    met = torch.einsum("hid,de,hie->hi", queries, second, queries.conj()).real
    weights = met.view(layer.groups, -1, met.shape[1]).sum(1).clamp_min(1e-30)
    scaled = keys * weights.sqrt()[:, :, None]
    energy, vectors = torch.linalg.eigh(torch.einsum("gid,de,kie->igk", scaled, second, scaled.conj()))
    energy, vectors = energy.flip(-1), vectors.flip(-1)
    root = weights.sqrt().T
    mix = vectors / root[:, :, None]
    unmix = vectors.mH * root[:, None, :]
    return PairBasis(mix, unmix, energy)


def choose_pairs(bases: list[PairBasis], frequencies: Tensor, count: int) -> list[Pair]:
    """The `count` pairs whose rotation the whole model misses most."""
    shares = torch.stack([basis.energy / basis.energy.sum() for basis in bases]).sum(0)
    # What is left of a rotation's real part, on average over distances that fall off exponentially.
    kept = 1 / (1 + (frequencies.double() * MEAN_DISTANCE) ** 2)
    missed = shares * (1 - kept**2)[:, None]
    best = missed.flatten().argsort(descending=True)[:count]
    return sorted((int(index) // missed.shape[1], int(index) % missed.shape[1]) for index in best)


def rotary_queries(layer: DenseLayer, mix: Tensor, pairs: list[Pair]) -> Tensor:
    """The queries that meet the chosen pairs, float64 [heads, 2 * pairs, hidden]."""
    queries, groups = as_pairs(layer.query), layer.group_of_head
    chosen = [queries[:, at] * mix[at, groups, component].conj()[:, None] for at, component in pairs]
    return as_rows(torch.stack(chosen, dim=1))


def compressed(
    layer: DenseLayer, moment: Tensor, basis: PairBasis, pairs: list[Pair], rank: int
) -> tuple[Tensor, Tensor]:
    """kv_a without its constant [rank + 2 * pairs, hidden], kv_b [heads, nope + value, rank], float64."""
    keys = torch.einsum("ijg,gid->ijd", basis.unmix, as_pairs(layer.key))
    rotary = as_rows(torch.stack([keys[at, component] for at, component in pairs]))
    lost = torch.ones(keys.shape[:2], dtype=torch.bool)
    for at, component in pairs:
        lost[at, component] = False
    rest = as_rows(torch.einsum("igj,ijd,ij->gid", basis.mix, keys, lost.to(keys.dtype)))
    down, up_key, up_value = _joint_pca(layer, moment, rest, rank)
    groups = layer.group_of_head
    up = torch.cat([up_key[groups], up_value[groups]], dim=1)
    # Coordinates of size 1 on average, whatever the metric's units.
    scale = ((down @ moment) * down).sum(1).mean().sqrt()
    return torch.cat([down / scale, rotary]), up * scale


def as_pairs(weight: Tensor) -> Tensor:
    """Interleaved rotary rows [.., head_dim, hidden] -> complex128 [.., head_dim / 2, hidden]."""
    parts = torch.unflatten(weight.double(), -2, (-1, 2))
    return torch.complex(parts[..., 0, :].contiguous(), parts[..., 1, :].contiguous())


def as_rows(pairs: Tensor) -> Tensor:
    """The way back."""
    return torch.stack((pairs.real, pairs.imag), -2).flatten(-3, -2)


def _joint_pca(layer: DenseLayer, moment: Tensor, keys: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Down [rank, hidden], and up to keys and to values, [groups, head_dim, rank] each."""
    heads, head_dim = layer.query.shape[:2]
    size = layer.groups * head_dim
    key_metric = torch.zeros(size, size, dtype=torch.float64)
    value_metric = torch.zeros(size, size, dtype=torch.float64)
    for head, group in enumerate(layer.group_of_head.tolist()):
        block = slice(group * head_dim, (group + 1) * head_dim)
        query, output = layer.query[head].double(), layer.output[:, head].double()
        key_metric[block, block] += query @ moment @ query.T / head_dim
        value_metric[block, block] += output.T @ output
    flat_keys, flat_values = keys.flatten(0, 1), layer.value.double().flatten(0, 1)
    output_energy = torch.einsum("ij,ja,ab,ib->", value_metric, flat_values, moment, flat_values) / heads
    key_metric += _RIDGE * key_metric.trace() * torch.eye(size)
    key_root, key_inverse = _roots(key_metric)
    value_root, value_inverse = _roots(value_metric)
    weight = _SCORE_WEIGHT * math.sqrt(float(output_energy))
    joined = torch.cat([weight * key_root @ flat_keys, value_root @ flat_values])
    basis = torch.linalg.svd(joined @ _roots(moment)[0])[0][:, :rank]
    up_key = (key_inverse / weight @ basis[:size]).view(layer.groups, head_dim, -1)
    up_value = (value_inverse @ basis[size:]).view(layer.groups, head_dim, -1)
    return basis.T @ joined, up_key, up_value


def _roots(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The square root of a symmetric matrix and its inverse, with small eigenvalues lifted."""
    values, vectors = torch.linalg.eigh(matrix)
    root = values.clamp_min(1e-6 * values.max()).sqrt()
    return (vectors * root) @ vectors.T, (vectors / root) @ vectors.T

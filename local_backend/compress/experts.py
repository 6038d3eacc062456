"""Sorts an FFN's neurons into shared and routed experts, and fits a router that foresees which matter.

The neurons that move the output most are shared; the others are clustered by when they are active, experts of
equal size (LLaMA-MoE, arXiv 2306.04640, and MoEfication, 2110.01786). The router is a ridge regression of how
much each expert would add, in closed form.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from local_backend.compress.dense import DenseLayer

_ROUNDS = 8
_RIDGE = 1e-2
# The slope of a sigmoid at zero, and how far scores leave it: gates start near one half, and twice that is
# one, the weight that every expert has in the exact model.
_SLOPE, _SPREAD = 0.25, 0.01


@dataclass(frozen=True)
class ExpertPlan:
    """order: neurons, shared first, then expert by expert.

    router [experts, hidden] and correction [experts] are DeepSeek-V3's gate and the bias of its choice.
    """

    order: Tensor
    router: Tensor
    correction: Tensor


def plan_experts(layer: DenseLayer, samples: Tensor, shared: int, experts: int) -> ExpertPlan:
    """`shared` neurons for every token, the others in `experts` equal parts; samples [tokens, hidden]."""
    x = samples.float()
    active = functional.silu(x @ layer.gate.T) * (x @ layer.up.T)
    reach = layer.down.norm(dim=0)
    ranked = (active.square().mean(0) * reach.square()).argsort(descending=True)
    rest = ranked[shared:]
    profile = (active[:, rest].abs() * reach[rest]).T
    parts = [rest[part] for part in _balanced_clusters(profile - profile.mean(1, keepdim=True), experts)]
    added = torch.stack([(active[:, part] @ layer.down[:, part].T).norm(dim=-1) for part in parts], dim=-1)
    router, offset = _ridge(x, added / added.mean())
    return ExpertPlan(
        torch.cat([ranked[:shared], *parts]), _SPREAD * router, _SPREAD * _SLOPE * (offset - offset.mean())
    )


def _balanced_clusters(features: Tensor, count: int) -> list[Tensor]:
    """Spherical k-means with clusters of equal size: the surest assignments are made first."""
    size = len(features) // count
    points = functional.normalize(features, dim=1)
    generator = torch.Generator().manual_seed(0)
    centres = points[torch.randperm(len(points), generator=generator)[:count]]
    members: list[list[int]] = []
    for _ in range(_ROUNDS):
        likeness = points @ centres.T
        members = [[] for _ in range(count)]
        placed = [False] * len(points)
        for index in likeness.flatten().argsort(descending=True).tolist():
            point, cluster = divmod(index, count)
            if not placed[point] and len(members[cluster]) < size:
                members[cluster].append(point)
                placed[point] = True
        centres = functional.normalize(torch.stack([points[part].mean(0) for part in members]), dim=1)
    return [torch.tensor(part) for part in members]


def _ridge(x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The linear map from x to target, [outputs, inputs], and its offset."""
    mean, middle = x.mean(0), target.mean(0)
    centred = x - mean
    gram = centred.T @ centred / len(x)
    gram += _RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
    weights = torch.linalg.solve(gram, centred.T @ (target - middle) / len(x)).T
    return weights, middle - weights @ mean

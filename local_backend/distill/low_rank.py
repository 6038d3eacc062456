"""LoRA (arXiv 2106.09685): a frozen matrix plus a trained product of two narrow ones."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from local_backend.kernels import grouped
from local_backend.model.linear import GroupedProjection, Projection


class FrozenProjection(nn.Module):
    """A matrix that isn't trained, multiplied in the dtype that the device is fastest at."""

    weight: Tensor

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.to(self.weight.dtype), self.weight).to(x.dtype)


class LowRankProjection(nn.Module):
    """The sum of a frozen matrix and of `b @ a`; a [rank, in], b [out, rank], which starts at zero."""

    def __init__(self, base: Projection, rank: int, generator: torch.Generator, dtype: torch.dtype) -> None:
        super().__init__()
        self.base = FrozenProjection(base.weight, dtype)
        self.bias = base.bias
        self.a, self.b = _start(base.weight, (), rank, generator)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.base(x) + functional.linear(functional.linear(x, self.a), self.b)
        return output if self.bias is None else output + self.bias


class LowRankExperts(nn.Module):
    """The same for all experts of a layer, which share `a`; b [experts, out, rank].

    One plain product an expert: torch's grouped product has no dependable gradient on every device.
    """

    base: Tensor

    def __init__(
        self, base: GroupedProjection, rank: int, generator: torch.Generator, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.register_buffer("base", base.weight.detach().to(dtype))
        self.a, self.b = _start(base.weight, (len(base.weight),), rank, generator)

    def contiguous(self, x: Tensor, offsets: Tensor) -> Tensor:
        """As in GroupedProjection."""
        output = grouped.contiguous_reference(x.to(self.base.dtype), self.base, offsets).to(x.dtype)
        return output + grouped.contiguous_reference(functional.linear(x, self.a), self.b, offsets)

    def masked(self, x: Tensor, counts: Tensor) -> Tensor:
        """As in GroupedProjection."""
        narrow = functional.linear(x, self.a)
        output = grouped.masked(x.to(self.base.dtype), self.base, counts).to(x.dtype)
        return output + grouped.masked(narrow, self.b, counts)


def adapt(root: nn.Module, rank: int, seed: int, dtype: torch.dtype) -> None:
    """Wrap every matrix below `root` that is only applied as a whole; what is frozen is kept in `dtype`."""
    generator = torch.Generator().manual_seed(seed)
    for parent in list(root.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Projection):
                setattr(parent, name, LowRankProjection(child, rank, generator, dtype))
            elif isinstance(child, GroupedProjection):
                setattr(parent, name, LowRankExperts(child, rank, generator, dtype))


def checkpoint_parts(module: str, b: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Which rows of a module's `b` belong to which tensor of a checkpoint, by name within the layer."""
    path, _, kind = module.rpartition(".")
    names = {"gate_up": ("gate_proj", "up_proj"), "down": ("down_proj",)}.get(kind, (kind,))
    experts = [(f"{path}.{index}", each) for index, each in enumerate(b)] if b.dim() > 2 else [(path, b)]  # noqa: PLR2004
    for owner, rows in experts:
        for name, part in zip(names, rows.chunk(len(names)), strict=True):
            yield f"{owner}.{name}.weight", part


def _start(
    weight: Tensor, leading: tuple[int, ...], rank: int, generator: torch.Generator
) -> tuple[nn.Parameter, nn.Parameter]:
    inner, outer = weight.shape[-1], weight.shape[-2]
    a = torch.randn(rank, inner, generator=generator) / math.sqrt(inner)
    b = torch.zeros(*leading, outer, rank)
    return nn.Parameter(a.to(weight.device)), nn.Parameter(b.to(weight.device))

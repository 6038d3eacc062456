"""The processes that hold one model together, over torch.distributed."""

from dataclasses import dataclass

import torch.distributed
from torch import Tensor

from local_backend.errors import ConfigError


@dataclass(frozen=True)
class ParallelGroup:
    """The place of this process among `size` processes; one alone communicates nothing."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "ParallelGroup":
        """The default process group, if torch.distributed has been initialised."""
        if not torch.distributed.is_initialized():
            return cls()
        return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum of every process's `x`, which is overwritten."""
        if self.size > 1:
            torch.distributed.all_reduce(x)
        return x

    def share(self, total: int, what: str) -> int:
        """How many of `total` each process holds. Raises ConfigError when they cannot be shared equally."""
        if total % self.size:
            raise ConfigError(
                f"{what} {total} cannot be shared equally by {self.size} processes; "
                "start a number that divides it"
            )
        return total // self.size

    def narrow(self, tensor: Tensor, dim: int) -> Tensor:
        """The share of this process: a part of a tensor along `dim`."""
        share = self.share(tensor.shape[dim], "a dimension of")
        return tensor.narrow(dim, self.rank * share, share) if self.size > 1 else tensor

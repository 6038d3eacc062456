"""The cache's memory: one tensor of MLA latents in blocks, and the view of it that a forward pass has."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from local_backend.kernels import fp8_latents
from local_backend.kernels.dispatch import Kernel, capabilities, mla_decode
from local_backend.kernels.mla_decode import Pages
from local_backend.model.config import DeepseekConfig


@dataclass(frozen=True)
class LatentFormat:
    """Latents are kept as numbers of dtype `kept`, packed as FP8 where that is uint8, and read as `read`."""

    kept: torch.dtype = torch.float32
    read: torch.dtype = torch.float32

    def width(self, config: DeepseekConfig) -> int:
        """Elements of `kept` a token a layer."""
        if self.kept == torch.uint8:
            return fp8_latents.packed_bytes(config.kv_lora_rank, config.qk_rope_head_dim)
        return config.latent_dim

    def block_bytes(self, config: DeepseekConfig, size: int) -> int:
        """Memory of a block of `size` tokens over all layers."""
        return config.num_hidden_layers * size * self.width(config) * self.kept.itemsize


def paged_kernel(config: DeepseekConfig, device: torch.device, dtype: torch.dtype, size: int) -> bool:
    """Whether the device has a kernel that decodes over blocks of `size` tokens."""
    shape = config.kv_lora_rank, config.qk_rope_head_dim, size
    return mla_decode(capabilities(device), dtype, *shape) is not Kernel.REFERENCE


@dataclass(frozen=True)
class Extent:
    """A forward pass computes the positions [start, end) of a sequence whose latents lie in `blocks`.

    Positions are those in the cache: before them `evicted` tokens of the text are gone.
    """

    blocks: Sequence[int]
    start: int
    end: int
    evicted: int = 0


class LatentPool:
    """One tensor [layers, blocks, size, width]; on a CPU a block takes memory once it is written.

    `spare` is a block beyond those asked for, for rows that nobody reads.
    """

    def __init__(
        self,
        config: DeepseekConfig,
        blocks: int,
        size: int,
        device: torch.device,
        form: LatentFormat = LatentFormat(),
    ) -> None:
        self.rank = config.kv_lora_rank
        self.size = size
        self.form = form
        self.spare = blocks
        shape = (config.num_hidden_layers, blocks + 1, size, form.width(config))
        self.has_paged_kernel = form.kept == form.read and paged_kernel(config, device, form.read, size)
        if device.type == "cpu":
            # numpy asks the system for zeroed pages, made when written; torch would write them all now.
            zeros = np.zeros((*shape[:-1], shape[-1] * form.kept.itemsize), np.uint8)
            self.planes = torch.from_numpy(zeros).view(form.kept)
        else:
            self.planes = torch.zeros(shape, device=device, dtype=form.kept)

    def write(self, layer: int, slots: Tensor, latents: Tensor) -> None:
        """Store latents [rows, tokens, latent_dim] at slots [rows * tokens], each block * size + place."""
        flat = self.planes[layer].flatten(0, 1)
        rows = latents.flatten(0, 1)
        packed = fp8_latents.pack(rows, self.rank) if flat.dtype == torch.uint8 else rows.to(flat.dtype)
        flat.index_copy_(0, slots, packed)

    def view(self, extents: Sequence[Extent]) -> "PagedView":
        """The rows of one forward pass; all extents are of the same length."""
        return PagedView(self, extents)

    def rows(self, rows: Sequence[int], start: int, end: int) -> "PagedView":
        """The positions [start, end) of sequences that have a block each, for use without an engine."""
        return self.view([Extent([row], start, end) for row in rows])


class PagedView:
    """Where a pass writes and what it reads: blocks that lie side by side in place, others gathered."""

    def __init__(self, pool: LatentPool, extents: Sequence[Extent]) -> None:
        self._pool = pool
        self.extents = extents
        size, device = pool.planes.shape[2], pool.planes.device
        self.lengths = [extent.end for extent in extents]
        self.evicted = [extent.evicted for extent in extents]
        slots = [
            extent.blocks[position // size] * size + position % size
            for extent in extents
            for position in range(extent.start, extent.end)
        ]
        self._slots = torch.tensor(slots, device=device)
        self._used = [list(extent.blocks[: -(-extent.end // size)]) for extent in extents]
        self._where = [
            slice(ids[0], ids[-1] + 1)
            if ids == list(range(ids[0], ids[-1] + 1))
            else torch.tensor(ids, device=device)
            for ids in self._used
        ]

    def write(self, layer: int, latents: Tensor) -> None:
        """Store latents [rows, tokens, latent_dim] of the positions that this pass computes."""
        self._pool.write(layer, self._slots, latents)

    def pages(self, layer: int) -> Pages | None:
        """The same for a kernel that reads blocks where they lie; None where there is none."""
        if not self._pool.has_paged_kernel:
            return None
        return Pages(self._pool.planes[layer], *self._tables)

    @cached_property
    def _tables(self) -> tuple[Tensor, Tensor]:
        device = self._pool.planes.device
        width = max(len(blocks) for blocks in self._used)
        tables = [[*blocks, *[0] * (width - len(blocks))] for blocks in self._used]
        lengths = torch.tensor(self.lengths, dtype=torch.int32, device=device)
        return torch.tensor(tables, dtype=torch.int32, device=device), lengths

    def read(self, layer: int, row: int) -> Tensor:
        """A row's latents up to the last of its positions, [length, latent_dim]."""
        where, plane = self._where[row], self._pool.planes[layer]
        blocks = plane[where] if isinstance(where, slice) else plane.index_select(0, where)
        latents = blocks.flatten(0, 1)[: self.lengths[row]]
        if latents.dtype == torch.uint8:
            return fp8_latents.unpack(latents, self._pool.rank, self._pool.form.read)
        return latents.to(self._pool.form.read)

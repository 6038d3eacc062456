"""Decoding passes recorded once as CUDA graphs and replayed.

A decoding step is hundreds of kernels that each take microseconds, less than their launch from Python; a
graph launches all of them at once. Its tensors have fixed places and shapes, so it is recorded for some
numbers of rows (as vLLM does), and a batch is filled up to the next of them with rows that write to the
pool's spare block.
"""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from local_backend.engine.latents import Extent, LatentPool
from local_backend.kernels.dispatch import Kernel, capabilities
from local_backend.kernels.mla_decode import Pages
from local_backend.model.model import DeepseekV3

log = logging.getLogger(__name__)

Record = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""Turns a computation on tensors in fixed places into one that repeats it on what lies there then."""

_WARM_UPS = 2


class StaticView:
    """A decoding pass's LatentView whose tensors keep their places; only the paged kernel reads it."""

    def __init__(self, pool: LatentPool, slots: Tensor, tables: Tensor, lengths: Tensor) -> None:
        self.lengths: Sequence[int] = ()
        self.evicted: Sequence[int] = ()
        self._pool = pool
        self._slots = slots
        self._tables = tables
        self._lengths = lengths

    def write(self, layer: int, latents: Tensor) -> None:
        """Store latents [rows, 1, latent_dim]."""
        self._pool.write(layer, self._slots, latents)

    def read(self, layer: int, row: int) -> Tensor:
        """Refused: how many latents there are is not known when the graph is recorded."""
        raise RuntimeError(f"row {row} of layer {layer} can only be read through its pages")

    def pages(self, layer: int) -> Pages:
        """What the paged kernel reads."""
        return Pages(self._pool.planes[layer], self._tables, self._lengths)


class DecodeGraphs:
    """Replays a decoding step for up to `rows` sequences of up to `max_blocks` blocks each."""

    def __init__(
        self, model: DeepseekV3, pool: LatentPool, rows: int, max_blocks: int, record: Record | None = None
    ) -> None:
        device = pool.planes.device
        self._model = model
        self._pool = pool
        self._record = record or record_cuda_graph
        self._sizes = [*(1 << power for power in range(rows.bit_length()) if 1 << power < rows), rows]
        self._replays: dict[int, Callable[[], Tensor]] = {}
        self._ids = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self._positions = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self._slots = torch.zeros(rows, dtype=torch.int64, device=device)
        self._tables = torch.zeros(rows, max_blocks, dtype=torch.int32, device=device)
        self._lengths = torch.zeros(rows, dtype=torch.int32, device=device)

    @torch.inference_mode()
    def __call__(self, ids: Sequence[int], extents: Sequence[Extent]) -> Tensor:
        """Run one token a sequence, each extent being of one position; logits [rows, vocab_size]."""
        size = next(each for each in self._sizes if each >= len(ids))
        self._fill(ids, extents, size)
        if size not in self._replays:
            self._replays[size] = self._record(lambda: self._compute(size))
        return self._replays[size]()[: len(ids)]

    def _compute(self, size: int) -> Tensor:
        view = StaticView(self._pool, self._slots[:size], self._tables[:size], self._lengths[:size])
        hidden = self._model(self._ids[:size], self._positions[:size], view)
        return self._model.logits(hidden[:, -1])

    def _fill(self, ids: Sequence[int], extents: Sequence[Extent], size: int) -> None:
        spare = Extent([self._pool.spare], 0, 1)
        filled = [*extents, *[spare] * (size - len(ids))]
        width, block = self._tables.shape[1], self._pool.planes.shape[2]
        tables = [[*extent.blocks, *[0] * (width - len(extent.blocks))][:width] for extent in filled]
        slots = [extent.blocks[extent.start // block] * block + extent.start % block for extent in filled]
        for buffer, values in (
            (self._ids, [[token] for token in [*ids, *[0] * (size - len(ids))]]),
            (self._positions, [[extent.start] for extent in filled]),
            (self._slots, slots),
            (self._tables, tables),
            (self._lengths, [extent.end for extent in filled]),
        ):
            buffer[:size].copy_(torch.tensor(values, dtype=buffer.dtype))


def can_record(device: torch.device) -> bool:
    """Whether the device has CUDA graphs, and no kernel that plans on the host takes part."""
    have = capabilities(device)
    return have.is_cuda and Kernel.FLASHINFER not in have.packages


def record_cuda_graph(compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Record a computation; one that cannot be recorded, because it waits for the device, is run as it is."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            compute()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            output = compute()
    except RuntimeError:
        log.warning("decoding cannot be recorded as a CUDA graph; it runs step by step", exc_info=True)
        return compute

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay

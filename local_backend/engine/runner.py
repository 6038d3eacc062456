"""Runs the model on what the scheduler chose: prompts by the chunk, generated tokens row by row.

What a token's computation looks like depends on its own sequence alone: a prompt's chunk is a pass of its
own, and rows of a decoding pass are independent (batch invariance; see Thinking Machines, "Defeating
Nondeterminism in LLM Inference", 2025).
"""

from collections.abc import Sequence as Series
from dataclasses import dataclass

import torch
from torch import Tensor

from local_backend.engine.decode_graphs import DecodeGraphs
from local_backend.engine.latents import Extent, LatentPool
from local_backend.engine.request import Sequence
from local_backend.engine.scheduler import Chunk
from local_backend.kernels.cpu_int4 import CPU_ROWS
from local_backend.measure.arithmetic import Arithmetic
from local_backend.model.model import DeepseekV3


@dataclass(frozen=True)
class Row:
    """A token to run at its position: one that was generated, or that may be."""

    sequence: Sequence
    position: int
    token: int

    @property
    def is_true(self) -> bool:
        """Whether the sequence has this token there, and all before it are cached."""
        here = self.position == self.sequence.num_cached and self.position < len(self.sequence)
        return here and self.sequence.token(self.position) == self.token


class ModelRunner:
    """The model and its cache's memory. Used by the engine's thread alone."""

    def __init__(
        self,
        model: DeepseekV3,
        latents: LatentPool,
        device: torch.device,
        rows: int = CPU_ROWS,
        graphs: DecodeGraphs | None = None,
    ) -> None:
        """`rows` is how many generated tokens one pass runs at most; `graphs` runs them where it can."""
        self._model = model
        self._latents = latents
        self._device = device
        self.rows = rows
        self._arithmetic = Arithmetic(model.config)
        self._graphs = graphs

    @torch.inference_mode()
    def prefill(self, chunk: Chunk) -> Tensor | None:
        """Cache a chunk of a prompt; the logits after the last, float32 [vocab_size] on the CPU."""
        hidden = self._run(chunk)
        if chunk.end < len(chunk.sequence):
            return None
        return self._model.logits(hidden[0, -1]).cpu()

    @torch.inference_mode()
    def pool(self, chunk: Chunk) -> Tensor:
        """Cache a chunk of a prompt; the sum of its final hidden states, float32 [hidden_size] on the CPU."""
        return self._run(chunk)[0].float().sum(0).cpu()

    @torch.inference_mode()
    def decode(self, rows: Series[Row]) -> Tensor:
        """Cache at most `self.rows` generated tokens; the logits after each, float32 [rows, vocab_size]."""
        extents = [
            extent_of(row.sequence, row.position, row.position + 1, self._latents.size) for row in rows
        ]
        tokens = [row.token for row in rows]
        if self._graphs is not None:
            return self._graphs(tokens, extents).cpu()
        ids = torch.tensor(tokens, device=self._device)[:, None]
        positions = torch.tensor([[extent.start] for extent in extents], device=self._device)
        hidden = self._model(ids, positions, self._latents.view(extents))
        return self._model.logits(hidden[:, -1]).cpu()

    def flops_of_row(self, row: Row) -> int:
        """Operations of a generated token, which attends to what is cached of its text."""
        gone = row.sequence.dropped * self._latents.size
        return self._arithmetic.token(row.position + 1 - gone)

    def flops_of_chunk(self, chunk: Chunk, *, last: bool) -> int:
        """Operations of a chunk, `last` with the logits after it."""
        gone = chunk.sequence.dropped * self._latents.size
        return self._arithmetic.chunk(chunk.start - gone, chunk.end - gone, last=last)

    def _run(self, chunk: Chunk) -> Tensor:
        ids = torch.tensor([chunk.sequence.prompt[chunk.start : chunk.end]], device=self._device)
        extent = extent_of(chunk.sequence, chunk.start, chunk.end, self._latents.size)
        positions = torch.arange(extent.start, extent.end, device=self._device)[None]
        hidden: Tensor = self._model(ids, positions, self._latents.view([extent]))
        return hidden


def extent_of(sequence: Sequence, start: int, end: int, size: int) -> Extent:
    """Where the text's positions [start, end) are in the cache, in blocks of `size` tokens."""
    evicted = sequence.dropped * size
    return Extent([block.id for block in sequence.table], start - evicted, end - evicted, evicted)

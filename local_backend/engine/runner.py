"""Runs the model on what the scheduler chose: prompts un-absorbed, one token a sequence absorbed."""

from collections.abc import Sequence as Series

import torch
from torch import Tensor

from local_backend.engine.cache import LatentCache
from local_backend.engine.request import Sequence
from local_backend.model.model import DeepseekV3


class ModelRunner:
    """The model and its cache. Used by the engine's thread alone."""

    def __init__(self, model: DeepseekV3, cache: LatentCache, device: torch.device) -> None:
        self._model = model
        self._cache = cache
        self._device = device

    @torch.inference_mode()
    def prefill(self, sequence: Sequence, start: int, end: int) -> Tensor:
        """Cache the prompt tokens [start, end); the last one's logits, float32 [vocab_size] on the CPU."""
        ids = torch.tensor([sequence.prompt[start:end]], device=self._device)
        positions = torch.arange(start, end, device=self._device)[None]
        view = self._cache.view([_slot(sequence)])
        hidden = self._model(ids, positions, end, view, absorbed=False)
        return self._model.logits(hidden[0, -1]).cpu()

    @torch.inference_mode()
    def decode(self, sequences: Series[Sequence]) -> Tensor:
        """Cache each sequence's last token; the logits after it, float32 [batch, vocab_size] on the CPU."""
        ids = torch.tensor([[sequence.generated[-1]] for sequence in sequences], device=self._device)
        positions = torch.tensor([[sequence.num_cached] for sequence in sequences], device=self._device)
        length = max(sequence.num_cached for sequence in sequences) + 1
        view = self._cache.view([_slot(sequence) for sequence in sequences])
        hidden = self._model(ids, positions, length, view, absorbed=True)
        return self._model.logits(hidden[:, -1]).cpu()


def _slot(sequence: Sequence) -> int:
    if sequence.slot is None:
        raise RuntimeError("a sequence was scheduled without a cache slot")
    return sequence.slot

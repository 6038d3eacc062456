"""Compares a model with transformers' of the same weights, fed whole, in chunks and token by token."""

from typing import Any

import torch

from local_backend.engine.latents import LatentPool
from local_backend.model.model import DeepseekV3

LENGTH = 24


def run(model: DeepseekV3, ids: torch.Tensor, chunks: list[int], *, absorbed: bool) -> torch.Tensor:
    """Logits [batch, tokens, vocab], with the tokens fed in chunks of the given sizes."""
    pool = LatentPool(model.config, len(ids), ids.shape[1], torch.device("cpu"))
    logits, start = [], 0
    for size in chunks:
        end = start + size
        positions = torch.arange(start, end).expand(len(ids), -1)
        view = pool.rows(range(len(ids)), start, end)
        hidden = model(ids[:, start:end], positions, view, absorbed)
        logits.append(model.logits(hidden))
        start = end
    return torch.cat(logits, dim=1)


@torch.inference_mode()
def assert_agrees(model: DeepseekV3, oracle: Any) -> None:
    """Logits within 1e-5 in prefill, chunked prefill and decode, naive and absorbed."""
    ids = torch.randint(0, 256, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    expected = oracle(ids).logits
    assert expected.abs().max() > 0.1
    for chunks in ([LENGTH], [10, 9, 5], [8] + [1] * (LENGTH - 8)):
        for absorbed in (False, True):
            found = run(model, ids, chunks, absorbed=absorbed)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)

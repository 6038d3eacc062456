"""llama.cpp as a contender of local_throughput.py: greedy answers side by side in one context.

Its Python package offers one answer at a time, so this takes the C functions that it binds, as llama.cpp's
own examples/batched does. PyPI has no wheel of it for Linux: `python -m pip install llama-cpp-python`
compiles it, which takes a C++ compiler, CMake and patience.
"""

import ctypes
from pathlib import Path

import llama_cpp
import numpy as np

_BATCH = 512


@llama_cpp.llama_log_callback
def _quiet(_level: int, _text: bytes, _data: ctypes.c_void_p) -> None:
    """Nothing of what it tells while it loads."""


class LlamaCpp:
    """A model with room for some sequences."""

    def __init__(self, gguf: Path, sequences: int, length: int, threads: int) -> None:
        llama_cpp.llama_log_set(_quiet, ctypes.c_void_p(0))
        model = llama_cpp.llama_model_load_from_file(
            str(gguf).encode(), llama_cpp.llama_model_default_params()
        )
        if model is None:
            raise RuntimeError(f"llama.cpp cannot load {gguf}")
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = sequences * length
        options.n_batch = options.n_ubatch = _BATCH
        options.n_seq_max = sequences
        options.n_threads = options.n_threads_batch = threads
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self._context = llama_cpp.llama_init_from_model(model, options)
        self._batch = llama_cpp.llama_batch_init(_BATCH, 0, 1)

    def generate(self, prompts: list[list[int]], tokens: int, banned: list[int]) -> int:
        """Answer all prompts with so many tokens each, none of them banned; how many were made."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
        latest = []
        for sequence, prompt in enumerate(prompts):
            last = self._run([(token, at, sequence) for at, token in enumerate(prompt)], banned)
            latest.append(last[-1])
        made = len(latest)
        for step in range(tokens - 1):
            rows = [(token, len(prompts[0]) + step, at) for at, token in enumerate(latest)]
            latest = self._run(rows, banned)
            made += len(latest)
        return made

    def _run(self, rows: list[tuple[int, int, int]], banned: list[int]) -> list[int]:
        """Run (token, position, sequence) in one pass; the likeliest token after each."""
        batch = self._batch
        batch.n_tokens = len(rows)
        is_prompt = len(rows) > 1 and rows[0][2] == rows[-1][2]
        for index, (token, position, sequence) in enumerate(rows):
            batch.token[index], batch.pos[index] = token, position
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, sequence
            batch.logits[index] = not is_prompt or index == len(rows) - 1
        if code := llama_cpp.llama_decode(self._context, batch):
            raise RuntimeError(f"llama_decode failed with {code}")
        wanted = [len(rows) - 1] if is_prompt else range(len(rows))
        return [self._likeliest(index, banned) for index in wanted]

    def _likeliest(self, index: int, banned: list[int]) -> int:
        pointer = llama_cpp.llama_get_logits_ith(self._context, index)
        logits = np.ctypeslib.as_array(pointer, shape=(self._vocabulary,))
        logits[banned] = -np.inf
        return int(logits.argmax())

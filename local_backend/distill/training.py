"""Distillation (arXiv 1503.02531): the student learns the teacher's distribution after every token.

The step alone decides which texts come and how fast the student learns, so that a run that was interrupted
goes on exactly as it would have.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from local_backend.distill.student import divergence, log_probabilities, make_trainable
from local_backend.errors import ConfigError
from local_backend.model.model import DeepseekV3

_WARM_UP, _FLOOR = 20, 0.05
# Of the rate, for the outer factors, which start at zero and so have no size of their own.
_OUTER = 0.1
_CLIP = 1.0


@dataclass(frozen=True)
class TrainingOptions:
    """rate is relative to the size of what is trained; batch is texts a step."""

    steps: int = 4000
    batch: int = 1
    rank: int = 16
    rate: float = 1e-2
    seed: int = 0


class Training:
    """A student and its optimiser at some step. Texts are int64 [tokens], all of a length."""

    def __init__(
        self, teacher: DeepseekV3, student: DeepseekV3, texts: Sequence[Tensor], options: TrainingOptions
    ) -> None:
        self.options = options
        self.step = 0
        self.student = student
        self._teacher = teacher
        self._texts = texts
        self._settings = asdict(options) | {"texts": _fingerprint(texts)}
        self._device = student.embed_tokens.weight.device
        self.trained = make_trainable(student, options.rank, options.seed)
        self._rates = [self._rate(name, each) for name, each in self.trained.items()]
        groups = [{"params": [each]} for each in self.trained.values()]
        self._optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)

    def advance(self) -> Iterator[float]:
        """Take the steps that are left; yields the divergence that each began with."""
        while self.step < self.options.steps:
            ids = self._batch()
            with torch.no_grad():
                wanted = log_probabilities(self._teacher, ids)
            loss = divergence(wanted, log_probabilities(self.student, ids))
            loss.backward()  # type: ignore[no-untyped-call]
            self._set_rates()
            nn.utils.clip_grad_norm_(self.trained.values(), _CLIP)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            self.step += 1
            yield float(loss.detach())

    def save(self, path: Path) -> None:
        """Write everything that going on needs, whole or not at all."""
        part = path.with_suffix(".part")
        torch.save(
            {
                "step": self.step,
                "settings": self._settings,
                "trained": {name: each.detach().cpu() for name, each in self.trained.items()},
                "optimizer": self._optimizer.state_dict(),
            },
            part,
        )
        part.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from `path`. Raises ConfigError when it was made with other options."""
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if saved["settings"] != self._settings:
            other = [name for name, value in saved["settings"].items() if value != self._settings[name]]
            told = (
                "other texts" if name == "texts" else f"--{name} {saved['settings'][name]}" for name in other
            )
            raise ConfigError(f"{path} was made with {' and '.join(told)}; give the same, or another --out")
        with torch.no_grad():
            for name, each in self.trained.items():
                each.copy_(saved["trained"][name])
        self._optimizer.load_state_dict(saved["optimizer"])
        self.step = saved["step"]

    def _batch(self) -> Tensor:
        """The texts of this step: every text once an epoch, in an order of its own."""
        chosen = []
        for index in range(self.step * self.options.batch, (self.step + 1) * self.options.batch):
            epoch, place = divmod(index, len(self._texts))
            generator = torch.Generator().manual_seed(self.options.seed + epoch)
            order = torch.randperm(len(self._texts), generator=generator)
            chosen.append(self._texts[int(order[place])])
        return torch.stack(chosen).to(self._device)

    def _rate(self, name: str, parameter: nn.Parameter) -> float:
        if name.endswith(".b"):
            return _OUTER * self.options.rate
        return self.options.rate * float(parameter.detach().square().mean().sqrt())

    def _set_rates(self) -> None:
        warm = min(1.0, (self.step + 1) / _WARM_UP)
        factor = warm * max(_FLOOR, 1 - self.step / self.options.steps)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor


def _fingerprint(texts: Sequence[Tensor]) -> str:
    digest = hashlib.sha256()
    for ids in texts:
        digest.update(ids.numpy().tobytes())
    return digest.hexdigest()[:12]

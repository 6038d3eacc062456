"""The outcome of a distillation as one safetensors file, to be laid over the folder of profile `exact`.

It holds the plan of the smaller form (compress/student.py), what was trained whole, and the low-rank parts,
all in bfloat16; its quality was measured after that rounding.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from local_backend.compress.experts import ExpertPlan
from local_backend.compress.latent import LatentPlan
from local_backend.compress.student import LatentShape, LayerPlan, Plan, Shape
from local_backend.distill.low_rank import checkpoint_parts
from local_backend.errors import ConfigError

FORMAT = "tidegate-delta-2"
MAX_DIVERGENCE = 0.1


@dataclass(frozen=True)
class Delta:
    """base: the hash of the exact model's weights. kl: measured on text that it has not learned from.

    plan has the trained kv_b, where attention is compressed, and routers; norms are trained whole; low_rank
    has `a` and `b` of each module.
    """

    base: str
    kl: float
    steps: int
    plan: Plan
    norms: Mapping[str, Tensor]
    low_rank: Mapping[str, tuple[Tensor, Tensor]]

    @property
    def has_passed(self) -> bool:
        return self.kl <= MAX_DIVERGENCE

    def check(self, path: Path, base: str) -> None:
        """Raises ConfigError unless it passed its gate and belongs to these weights."""
        if not self.has_passed:
            raise ConfigError(
                f"{path} did not pass its quality gate: KL {self.kl:.3f} against the exact model, at most "
                f"{MAX_DIVERGENCE} is served; distill further, or use --profile exact"
            )
        if self.base != base:
            raise ConfigError(f"{path} belongs to other weights than this model's; distill again")

    def correct(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor of the student with what was learned."""
        if name in self.norms:
            return self.norms[name].float()
        found = self._corrections.get(name)
        return tensor if found is None else tensor + found[1].float() @ found[0].float()

    @cached_property
    def _corrections(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {
            f"model.{part}": (a, rows)
            for module, (a, b) in self.low_rank.items()
            for part, rows in checkpoint_parts(module, b)
        }


def make_delta(base: str, plan: Plan, trained: Mapping[str, Tensor], steps: int, kl: float) -> Delta:
    """Of a student's trained parameters by name."""
    values = {name: tensor.detach().cpu().bfloat16() for name, tensor in trained.items()}
    layers = []
    for index, layer in enumerate(plan.layers):
        attention, experts = layer.attention, layer.experts
        if attention is not None:
            # Without the constant's column, which the norm sets to zero.
            kv_b = values[f"layers.{index}.self_attn.kv_b_proj.weight"]
            kept = kv_b.view(*attention.kv_b.shape[:2], -1)[..., :-1]
            attention = replace(attention, kv_b=kept, kv_a=attention.kv_a.bfloat16())
        if experts is not None:
            router = values[f"layers.{index}.mlp.gate.weight"]
            experts = replace(experts, router=router, correction=experts.correction.bfloat16())
        layers.append(LayerPlan(attention, experts))
    # What was never trained adds nothing.
    modules = [name.removesuffix(".b") for name, each in values.items() if name.endswith(".b") and each.any()]
    return Delta(
        base=base,
        kl=kl,
        steps=steps,
        plan=replace(plan, layers=layers),
        norms={f"model.{name}": each for name, each in values.items() if "layernorm" in name},
        low_rank={name: (values[f"{name}.a"], values[f"{name}.b"]) for name in modules},
    )


def write_delta(path: Path, delta: Delta) -> None:
    """Write the file, whole or not at all."""
    tensors = dict(_plan_tensors(delta.plan))
    tensors |= {f"norm.{name}": each for name, each in delta.norms.items()}
    for name, (a, b) in delta.low_rank.items():
        tensors |= {f"low_rank.{name}.a": a, f"low_rank.{name}.b": b}
    facts = {
        "format": FORMAT,
        "base": delta.base,
        "kl": repr(delta.kl),
        "steps": str(delta.steps),
        "shape": json.dumps(asdict(delta.plan.shape)),
        "pairs": json.dumps(delta.plan.pairs),
        "layers": str(len(delta.plan.layers)),
    }
    part = path.with_suffix(".part")
    save_file({name: each.contiguous() for name, each in tensors.items()}, part, metadata=facts)
    part.replace(path)


def read_delta(path: Path) -> Delta:
    """Raises ConfigError when the file is missing, damaged or something else."""
    try:
        with safe_open(path, framework="pt") as file:
            facts: dict[str, str] = file.metadata() or {}
            if facts.get("format") != FORMAT:
                raise ConfigError(f"{path} is not a delta that `python -m local_backend distill` made")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        shape = _shape(json.loads(facts["shape"]))
        pairs = [(at, component) for at, component in json.loads(facts["pairs"])]
        layers = [_layer(tensors, index) for index in range(int(facts["layers"]))]
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"cannot read the delta {path}: {error}") from error
    modules = [name.removesuffix(".a") for name in tensors if name.endswith(".a")]
    return Delta(
        base=facts["base"],
        kl=float(facts["kl"]),
        steps=int(facts["steps"]),
        plan=Plan(shape, pairs, layers),
        norms={_after(name): each for name, each in tensors.items() if name.startswith("norm.")},
        low_rank={_after(name): (tensors[f"{name}.a"], tensors[f"{name}.b"]) for name in modules},
    )


def _plan_tensors(plan: Plan) -> Iterator[tuple[str, Tensor]]:
    for index, layer in enumerate(plan.layers):
        if layer.attention is not None:
            yield f"plan.{index}.mix", torch.view_as_real(layer.attention.mix)
            yield f"plan.{index}.turns", torch.view_as_real(layer.attention.turns)
            yield f"plan.{index}.kv_a", layer.attention.kv_a
            yield f"plan.{index}.kv_b", layer.attention.kv_b
            yield f"plan.{index}.output_bias", layer.attention.output_bias
        if layer.experts is not None:
            yield f"plan.{index}.order", layer.experts.order.to(torch.int32)
            yield f"plan.{index}.router", layer.experts.router
            yield f"plan.{index}.correction", layer.experts.correction


def _layer(tensors: Mapping[str, Any], index: int) -> LayerPlan:
    def of(name: str) -> Tensor:
        tensor: Tensor = tensors[f"plan.{index}.{name}"]
        return tensor

    attention = experts = None
    if f"plan.{index}.mix" in tensors:
        attention = LatentPlan(
            torch.view_as_complex(of("mix")),
            torch.view_as_complex(of("turns")),
            of("kv_a").float(),
            of("kv_b").float(),
            of("output_bias"),
        )
    if f"plan.{index}.order" in tensors:
        experts = ExpertPlan(of("order").long(), of("router").float(), of("correction").float())
    return LayerPlan(attention, experts)


def _shape(found: Mapping[str, Any]) -> Shape:
    latent = found["latent"]
    return Shape(None if latent is None else LatentShape(**latent), found["top_k"])


def _after(name: str) -> str:
    return name.partition(".")[2]

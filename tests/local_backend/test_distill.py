"""A student learns, goes on exactly where it was interrupted, and is served only after its gate."""

from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
import torch

from local_backend.compress.profiles import write_student
from local_backend.compress.student import LatentShape, Shape
from local_backend.distill.delta import Delta, make_delta, read_delta, write_delta
from local_backend.distill.run import Distillation, DistillOptions
from local_backend.distill.training import Training, TrainingOptions
from local_backend.errors import ConfigError
from local_backend.weights.prepare import base_hash
from local_backend.weights.progress import silent
from tests.local_backend import tiny_dense

SHAPE = Shape(LatentShape(rope_pairs=8, rank=25), top_k=6)
OPTIONS = TrainingOptions(steps=12, batch=2, rank=4)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dense.exact_folder(tmp_path_factory.mktemp("exact"))


@pytest.fixture(scope="module")
def untrained(exact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    write_student(exact, folder, tiny_dense.plan(exact, SHAPE))
    return folder


def training(exact: Path, untrained: Path, options: TrainingOptions = OPTIONS) -> Training:
    return Training(tiny_dense.load(exact), tiny_dense.load(untrained), tiny_dense.texts(7), options)


def advance(run: Training, steps: int) -> list[float]:
    return [loss for _, loss in zip(range(steps), run.advance(), strict=False)]


@pytest.fixture(scope="module")
def learned(exact: Path, untrained: Path) -> tuple[Training, list[float]]:
    run = training(exact, untrained, TrainingOptions(steps=30, batch=2, rank=4))
    return run, list(run.advance())


def test_an_interrupted_run_goes_on_exactly(exact: Path, untrained: Path, tmp_path: Path) -> None:
    whole = training(exact, untrained)
    expected = list(whole.advance())
    assert len(expected) == 12

    first = training(exact, untrained)
    begun = advance(first, 5)
    first.save(tmp_path / "checkpoint.pt")
    second = training(exact, untrained)
    second.resume(tmp_path / "checkpoint.pt")
    assert begun + list(second.advance()) == expected
    assert all(torch.equal(each, second.trained[name]) for name, each in whole.trained.items())


def test_the_student_comes_nearer(learned: tuple[Training, list[float]]) -> None:
    _, losses = learned
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])


def test_only_small_parts_are_trained(exact: Path, untrained: Path) -> None:
    run = training(exact, untrained)
    kinds = {name.split(".")[-1] for name in run.trained}
    assert kinds == {"a", "b", "weight"}
    frozen = {name for name, each in run.student.named_parameters() if not each.requires_grad}
    assert {"embed_tokens.weight", "layers.0.self_attn.o_proj.bias"} <= frozen
    advance(run, 1)
    assert all(each.grad is None for each in run.student.parameters())


def test_a_checkpoint_of_other_options_is_refused(exact: Path, untrained: Path, tmp_path: Path) -> None:
    first = training(exact, untrained)
    first.save(tmp_path / "checkpoint.pt")
    with pytest.raises(ConfigError, match="made with --steps 12; give the same"):
        training(exact, untrained, replace(OPTIONS, steps=99)).resume(tmp_path / "checkpoint.pt")


def test_a_delta_holds_what_was_learned(
    exact: Path, untrained: Path, learned: tuple[Training, list[float]], tmp_path: Path
) -> None:
    run, _ = learned
    plan = tiny_dense.plan(exact, SHAPE)
    path = tmp_path / "delta.safetensors"
    write_delta(path, make_delta(base_hash(exact), plan, run.trained, run.step, 0.05))
    found = read_delta(path)
    assert (found.base, found.kl, found.steps, found.plan.shape) == (base_hash(exact), 0.05, 30, SHAPE)
    folder = tmp_path / "folder"
    folder.mkdir()
    write_student(exact, folder, found.plan, found.correct)

    from local_backend.distill.student import divergence, log_probabilities  # noqa: PLC0415

    ids = torch.stack(tiny_dense.texts(3, seed=5))
    with torch.no_grad():
        wanted = log_probabilities(run.student, ids)
        served = log_probabilities(tiny_dense.load(folder), ids)
        before = log_probabilities(tiny_dense.load(untrained), ids)
    assert divergence(wanted, served) < 0.1 * divergence(wanted, before)


def test_a_run_from_text_to_delta_and_on(exact: Path, tmp_path: Path) -> None:
    options = DistillOptions(SHAPE, TrainingOptions(steps=3, rank=2), length=48)
    first = Distillation(exact, tmp_path, torch.device("cpu"), options, silent)
    first.train()
    delta = first.finish()
    assert read_delta(tmp_path / "delta.safetensors").kl == delta.kl < inf
    assert (tmp_path / "curve.csv").read_text().startswith("step,kl\n3,")
    again = Distillation(exact, tmp_path, torch.device("cpu"), options, silent)
    assert again.training.step == 3
    assert again.finish().kl == delta.kl
    other = replace(options, shape=Shape(LatentShape(4, 25), 6))
    with pytest.raises(ConfigError, match=f"begun with --top-k {SHAPE.top_k} .*another --out"):
        Distillation(exact, tmp_path, torch.device("cpu"), other, silent)


def test_calibration_alone_makes_a_small_delta(exact: Path, tmp_path: Path) -> None:
    options = DistillOptions(Shape(top_k=6), TrainingOptions(steps=0, rank=2), length=48)
    run = Distillation(exact, tmp_path, torch.device("cpu"), options, silent)
    run.train()
    delta = run.finish()
    assert not delta.low_rank
    assert 0 < delta.kl < inf
    found = read_delta(tmp_path / "delta.safetensors").plan.layers[0].experts
    assert found is not None
    torch.testing.assert_close(found.router, run.plan.layers[0].experts.router, rtol=1e-2, atol=1e-4)
    # Rounding hides the last bits of float32, which are not the same on every machine.
    for each in (found.router, found.correction):
        assert torch.equal(each, each.bfloat16().float())


def outcome(exact: Path, kl: float) -> Delta:
    return Delta(base_hash(exact), kl, 10, tiny_dense.plan(exact, SHAPE), {}, {})


def test_a_delta_that_missed_its_gate_is_refused(exact: Path) -> None:
    path = Path("delta.safetensors")
    outcome(exact, 0.1).check(path, base_hash(exact))
    with pytest.raises(ConfigError, match=r"did not pass its quality gate: KL 0\.361"):
        outcome(exact, 0.361).check(path, base_hash(exact))
    with pytest.raises(ConfigError, match="other weights"):
        outcome(exact, 0.05).check(path, "0" * 64)


def test_what_is_no_delta_is_refused(exact: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a delta"):
        read_delta(exact / "model.safetensors")
    with pytest.raises(ConfigError, match="cannot read the delta"):
        read_delta(tmp_path / "missing.safetensors")
    whole = tmp_path / "delta.safetensors"
    write_delta(whole, outcome(exact, 0.05))
    whole.write_bytes(whole.read_bytes()[:-1000])
    with pytest.raises(ConfigError, match="cannot read the delta"):
        read_delta(whole)

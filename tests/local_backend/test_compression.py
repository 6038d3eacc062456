"""A compressed form at full size computes the same; smaller ones lose by degrees, and a gate bounds it."""

from pathlib import Path

import pytest
import torch
import transformers

from local_backend.compress.corpus import docstrings, prose, spread
from local_backend.compress.experts import plan_experts
from local_backend.compress.profiles import MLA256_GATE, Quality, write_student
from local_backend.compress.quality import divergence, judge
from local_backend.compress.student import LatentShape, Shape
from local_backend.distill.delta import read_delta
from local_backend.errors import ConfigError, WeightsError
from local_backend.weights.deepseek_io import Checkpoint
from local_backend.weights.load import load_config
from local_backend.weights.prepare import BUNDLED_MODEL, SHIPPED_DELTA, prepare_model
from local_backend.weights.progress import silent
from tests.local_backend import tiny_dense

# Two KV heads of 16: 8 frequencies a head, 16 pairs, 32 values.
FULL = Shape(LatentShape(rope_pairs=16, rank=33))


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dense.exact_folder(tmp_path_factory.mktemp("exact"))


def student(exact: Path, target: Path, shape: Shape) -> Path:
    target.mkdir()
    write_student(exact, target, tiny_dense.plan(exact, shape))
    return target


def distance(exact: Path, folder: Path) -> float:
    models = (tiny_dense.load(exact), tiny_dense.load(folder))
    judged = [[judge(model, ids) for ids in tiny_dense.texts(4, seed=1)] for model in models]
    return divergence(*judged)


def test_at_full_size_nothing_is_lost(exact: Path, tmp_path: Path) -> None:
    assert distance(exact, student(exact, tmp_path / "full", FULL)) < 1e-6


def test_each_cut_of_the_cache_costs_more(exact: Path, tmp_path: Path) -> None:
    shapes = [Shape(LatentShape(12, 33)), Shape(LatentShape(8, 25)), Shape(LatentShape(4, 13))]
    found = [distance(exact, student(exact, tmp_path / str(i), shape)) for i, shape in enumerate(shapes)]
    assert 1e-5 < found[0] < found[1] < found[2]


def test_fewer_experts_cost_more(exact: Path, tmp_path: Path) -> None:
    found = [
        distance(exact, student(exact, tmp_path / str(k), Shape(LatentShape(16, 33), k))) for k in (7, 5, 2)
    ]
    assert found[0] < found[1] < found[2]


def test_attention_stays_as_it_is_without_a_latent(exact: Path, tmp_path: Path) -> None:
    folder = student(exact, tmp_path / "sparse", Shape(top_k=6))
    with Checkpoint(exact) as before, Checkpoint(folder) as after:
        names = [name for name in before if ".self_attn." in name]
        assert names
        assert all(torch.equal(before[name], after[name]) for name in names)


def test_experts_that_are_all_chosen_weigh_what_they_did(exact: Path, tmp_path: Path) -> None:
    every, fewer = (distance(exact, student(exact, tmp_path / str(k), Shape(top_k=k))) for k in (8, 7))
    assert every < 0.1 * fewer


@torch.inference_mode()
def test_transformers_computes_the_same_from_a_compressed_folder(exact: Path, tmp_path: Path) -> None:
    folder = student(exact, tmp_path / "small", Shape(LatentShape(8, 25), 6))
    oracle = transformers.DeepseekV3ForCausalLM.from_pretrained(folder).eval()
    (ids,) = tiny_dense.texts(1)
    expected = oracle(ids[None]).logits[0, :-1].log_softmax(-1)
    found = judge(tiny_dense.load(folder), ids).first
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_only_the_exact_form_can_be_compressed(exact: Path, tmp_path: Path) -> None:
    folder = student(exact, tmp_path / "small", Shape(LatentShape(8, 25)))
    with pytest.raises(WeightsError, match="exact"):
        tiny_dense.plan(folder, FULL)


def test_experts_are_of_equal_size_and_the_router_foresees_them(exact: Path) -> None:
    from local_backend.compress.dense import read_dense  # noqa: PLC0415

    with Checkpoint(exact) as checkpoint:
        layer = read_dense(checkpoint, load_config(exact), 0)
    samples = tiny_dense.observed(exact).feed_forward[0]
    plan = plan_experts(layer, samples, 64, 8)
    assert sorted(plan.order.tolist()) == list(range(192))
    x = samples.float()
    active = torch.nn.functional.silu(x @ layer.gate.T) * (x @ layer.up.T)
    added = torch.stack(
        [(active[:, part] @ layer.down[:, part].T).norm(dim=-1) for part in plan.order[64:].split(16)], -1
    )
    chosen = ((x @ plan.router.T).sigmoid() + plan.correction).topk(4).indices
    kept = added.gather(1, chosen).sum() / added.sum()
    assert kept > 0.52


def test_the_gate_tells_what_it_found() -> None:
    MLA256_GATE.check("it", Quality(0.019, {2048: 1.01, 4096: 1.019}))
    for bad in (Quality(0.03, {2048: 1.0}), Quality(0.01, {2048: 1.0, 4096: 1.03})):
        with pytest.raises(WeightsError, match=r"KL 0\.0\d+ \(at most 0\.02\), perplexity \+\d\.0%"):
            MLA256_GATE.check("it", bad)


def test_what_is_judged_is_not_what_is_learned() -> None:
    learned, judged = docstrings(), prose()
    assert min(len(learned), len(judged)) > 500
    assert not set(learned) & set(judged)


def test_texts_are_spread_evenly() -> None:
    items = [torch.tensor(i) for i in range(10)]
    assert [int(each) for each in spread(items, 3)] == [0, 3, 6]
    assert len(spread(items, 20)) == 10


@pytest.mark.parametrize(
    ("model", "profile", "message"),
    [
        (BUNDLED_MODEL, "nothing", "unknown profile"),
        ("other.gguf", "mla256", "bundled model"),
    ],
)
def test_a_profile_that_cannot_be_had_is_refused(
    tmp_path: Path, model: str, profile: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare_model(model, profile, tmp_path, silent)


def test_the_delta_that_ships_passed_its_gate_and_is_small() -> None:
    shipped = read_delta(SHIPPED_DELTA)
    assert shipped.has_passed
    assert shipped.plan.shape == Shape(top_k=7)
    assert len(shipped.plan.layers) == 30
    assert SHIPPED_DELTA.stat().st_size < 1_000_000


def test_a_delta_is_for_the_sparse_profile_alone(tmp_path: Path) -> None:
    for profile in ("exact", "mla256"):
        with pytest.raises(ConfigError, match="sparse"):
            prepare_model(BUNDLED_MODEL, profile, tmp_path, silent, tmp_path / "delta.safetensors")

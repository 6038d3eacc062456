"""Counts agree with torch's own counter; energy comes from counters or not at all; bench over real HTTP."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from local_backend.cli import main
from local_backend.engine.latents import LatentFormat
from local_backend.measure.arithmetic import decode_flops, prompt_flops
from local_backend.measure.energy import Meter, find_meter
from local_backend.measure.timing import Passes
from local_backend.measure.traffic import cache_bytes, decode_traffic
from local_backend.model.model import DeepseekV3
from local_backend.weights.load import load_model
from tests.local_backend.conftest import make_oracle
from tests.local_backend.server_process import ServerProcess

CPU = torch.device("cpu")
LENGTH = 32
ALL_ACTIVE = {"num_experts_per_tok": 8, "norm_topk_prob": False}


def tiny(folder: Path, **overrides: Any) -> DeepseekV3:
    make_oracle(folder, **overrides)
    return load_model(folder, LENGTH, CPU, torch.float32)


@pytest.mark.parametrize(
    "overrides", [ALL_ACTIVE, ALL_ACTIVE | {"q_lora_rank": 24}, {"first_k_dense_replace": 2}]
)
def test_flops_are_those_that_torch_counts(tmp_path: Path, overrides: dict[str, Any]) -> None:
    model = tiny(tmp_path, **overrides)
    passes = Passes(model, LatentFormat(), 1, LENGTH)
    with FlopCounterMode(display=False) as decoding:
        passes.decode()
    assert decoding.get_total_flops() == decode_flops(model.config, LENGTH).total
    with FlopCounterMode(display=False) as prompt:
        passes.prompt()
    counted = prompt.get_total_flops() / LENGTH
    assert counted == pytest.approx(prompt_flops(model.config, LENGTH).total, abs=1)


def test_a_token_reads_the_weights_of_its_own_experts(tmp_path: Path) -> None:
    sparse = tiny(tmp_path / "sparse", num_experts_per_tok=2)
    dense = tiny(tmp_path / "dense", **ALL_ACTIVE)
    form = LatentFormat()
    found = decode_traffic(sparse, form, LENGTH)
    config = sparse.config
    expert = 3 * config.hidden_size * config.moe_intermediate_size * 4
    spared = config.num_hidden_layers * 6 * expert
    assert decode_traffic(dense, form, LENGTH).weights - found.weights == spared
    assert found.cache_read == LENGTH * found.cache_written
    assert found.cache_written == config.num_hidden_layers * config.latent_dim * 4


def test_cache_bytes_name_their_baselines(tmp_path: Path) -> None:
    config = tiny(tmp_path).config
    found = cache_bytes(config, LatentFormat())
    assert found.groups == config.num_attention_heads
    assert found.multi_head == found.grouped_query == 2 * 4 * 24 * 2 * 2
    assert found.latents == 2 * found.latents_bfloat16 == 2 * 48 * 4


def counter(folder: Path, name: str, joules: float, called: str = "package-0") -> Path:
    zone = folder / name
    zone.mkdir(exist_ok=True)
    (zone / "name").write_text(f"{called}\n")
    (zone / "max_energy_range_uj").write_text("100000000\n")
    (zone / "energy_uj").write_text(f"{int(joules * 1e6)}\n")
    return zone


def test_energy_is_the_sum_of_packages_and_survives_a_counter_that_starts_again(tmp_path: Path) -> None:
    counter(tmp_path, "intel-rapl:0", 10)
    counter(tmp_path, "intel-rapl:1", 99)
    counter(tmp_path, "intel-rapl:0:0", 50, "core")
    counter(tmp_path, "intel-rapl:2", 70, "psys")
    (tmp_path / "intel-rapl").mkdir()
    meter = find_meter(CPU, tmp_path)
    assert isinstance(meter, Meter)
    before = meter.read()
    counter(tmp_path, "intel-rapl:0", 12)
    counter(tmp_path, "intel-rapl:1", 4)
    assert meter.spent(before, meter.read()) == pytest.approx(2 + 5)


def test_without_counters_the_reason_is_told(tmp_path: Path) -> None:
    assert "no RAPL counters" in str(find_meter(CPU, tmp_path))
    (counter(tmp_path, "intel-rapl:0", 1) / "energy_uj").unlink()
    assert "cannot be read" in str(find_meter(CPU, tmp_path))


def test_profile_prints_and_writes_what_it_found(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "found.json"
    arguments = ["--model", str(tiny_folder), "--context", "64", "--repeat", "2", "--threads", "1"]
    assert main(["profile", *arguments, "--json", str(target)]) == 0
    shown = capsys.readouterr().out
    assert "cache bytes a token" in shown
    assert "aten::" in shown
    found = json.loads(target.read_text())
    assert found["decode_flops_per_token"] == sum(found["decode"].values())
    assert len(found["layers"]["attention"]) == 2
    assert min(found["layers"]["feed_forward"]) > 0
    kernels = found["decode_kernels"]
    assert kernels == sorted(kernels, key=lambda kernel: -kernel["milliseconds"])


def test_a_context_beyond_the_model_is_refused(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "--model", str(tiny_folder), "--context", "9000"]) == 2
    assert "8192" in capsys.readouterr().err


def test_bench_measures_streams_over_http(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    figures, picture = tmp_path / "found.json", tmp_path / "found.svg"
    arguments = ["--batches", "1", "3", "--tokens", "8", "--rounds", "1"]
    with ServerProcess("--model", str(tiny_folder)) as server:
        outputs = ["--json", str(figures), "--picture", str(picture)]
        assert main(["bench", "--url", f"{server.url}/v1", *arguments, *outputs]) == 0
    levels = json.loads(figures.read_text())["levels"]
    assert [(level["batch"], level["tokens"]) for level in levels] == [(1, 8), (3, 24)]
    assert all(level["ttft_median"] > 0 and level["tokens_per_second"] > 0 for level in levels)
    assert "<svg" in picture.read_text()
    assert "tokens/s" in capsys.readouterr().out


def test_bench_says_when_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--url", "http://127.0.0.1:9/v1", "--batches", "1"]) == 1
    assert "127.0.0.1:9" in capsys.readouterr().err


def test_a_picture_needs_matplotlib(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["bench", "--url", "http://127.0.0.1:9/v1", "--picture", "x.svg"]) == 2
    assert "pip install matplotlib" in capsys.readouterr().err

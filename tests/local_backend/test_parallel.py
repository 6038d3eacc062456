"""Two processes over gloo hold one model and compute what one process does."""

import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from local_backend.errors import ConfigError
from local_backend.parallel.group import ParallelGroup
from local_backend.parallel.layers import shared_config
from local_backend.weights.load import load_config, load_model
from tests.local_backend import rank
from tests.local_backend.conftest import make_oracle
from tests.local_backend.oracle import run
from tests.local_backend.server_process import ServerProcess

CPU = torch.device("cpu")
IDS = torch.randint(0, 256, (2, 20), generator=torch.Generator().manual_seed(1))
V3 = {"q_lora_rank": 24, "n_group": 4, "topk_group": 2, "first_k_dense_replace": 1, "attention_bias": True}
V2 = {
    "model_type": "deepseek_v2",
    "norm_topk_prob": False,
    "topk_method": "greedy",
    "n_group": None,
    "topk_group": None,
    "first_k_dense_replace": 1,
    "n_shared_experts": 2,
}
ALL_ACTIVE = {"num_experts_per_tok": 8, "n_shared_experts": 2}
VARIANTS: list[dict[str, Any]] = [V3, V2, ALL_ACTIVE]


def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    folders = [tmp_path / str(index) for index in range(len(VARIANTS))]
    for folder, variant in zip(folders, VARIANTS, strict=True):
        make_oracle(folder, **variant)
    context = multiprocessing.get_context("spawn")
    queues = [context.Queue(), context.Queue()]
    arguments = tmp_path / "store", folders, IDS
    ranks = [
        context.Process(target=rank.compute, args=(index, *arguments, queue))
        for index, queue in enumerate(queues)
    ]
    for process in ranks:
        process.start()
    for folder in folders:
        whole = load_model(folder, 128, CPU, torch.float32)
        all_held = sum(parameter.numel() for layer in whole.layers for parameter in layer.parameters())
        with torch.inference_mode():
            expected = run(whole, IDS, [20], absorbed=False)
        for index, queue in enumerate(queues):
            number, held, logits = queue.get(timeout=120)
            assert number == index
            torch.testing.assert_close(torch.from_numpy(logits), expected, atol=1e-5, rtol=0)
            assert held < 0.7 * all_held
    for process in ranks:
        process.join(timeout=60)
    assert [process.exitcode for process in ranks] == [0, 0]


def test_two_processes_serve_one_model(tiny_folder: Path) -> None:
    body = {"model": "tiny", "prompt": "one two three", "max_tokens": 30, "temperature": 0}
    body["logit_bias"] = {"2": -100}
    arguments = "--model", str(tiny_folder), "--dtype", "float32", "--max-length", "512"
    with ServerProcess(*arguments) as alone:
        expected = alone.post("/v1/completions", body).json()["choices"][0]["text"]
    with ServerProcess(*arguments, processes=2) as both:
        answers = [both.post("/v1/completions", body).json() for _ in range(2)]
        assert [answer["choices"][0]["text"] for answer in answers] == [expected] * 2
        both.terminate()
        _, logged = both.wait()
    assert '"processes": 2' in logged
    assert "Traceback" not in logged.split("SIGTERM", 1)[0]


def test_what_cannot_be_shared_equally_is_refused_by_name(tmp_path: Path) -> None:
    make_oracle(tmp_path)
    config = replace(load_config(tmp_path), n_routed_experts=9)
    with pytest.raises(ConfigError, match="num_attention_heads 4 cannot be shared equally by 3"):
        shared_config(config, ParallelGroup(0, 3))
    with pytest.raises(ConfigError, match="n_routed_experts 9"):
        shared_config(config, ParallelGroup(0, 2))


def test_one_process_alone_holds_everything(tmp_path: Path) -> None:
    make_oracle(tmp_path)
    assert ParallelGroup.current() == ParallelGroup(0, 1)
    config = load_config(tmp_path)
    assert shared_config(config, ParallelGroup()) == config

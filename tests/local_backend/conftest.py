"""The bundled model, converted once, and tiny random DeepSeek-V3 models made by the oracle."""

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from local_backend.weights.paths import default_cache_dir
from local_backend.weights.prepare import BUNDLED_MODEL, ModelFolder, prepare_model
from local_backend.weights.progress import StderrProgress
from tests.local_backend.server_process import ServerProcess

TINY: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 96,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "n_shared_experts": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 2.5,
    "kv_lora_rank": 32,
    "q_lora_rank": None,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 24,
    "first_k_dense_replace": 0,
    "norm_topk_prob": True,
    "max_position_embeddings": 128,
    "num_nextn_predict_layers": 0,
    "eos_token_id": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def bundled() -> ModelFolder:
    return prepare_model(BUNDLED_MODEL, "exact", default_cache_dir(), StderrProgress())


def make_oracle(folder: Path, seed: int = 0, **overrides: Any) -> Any:
    """A random DeepSeek-V3 (or V2) of transformers with lively router biases, saved into `folder`."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = {"model_type": "deepseek_v3", **TINY, **overrides}
        config = transformers.AutoConfig.for_model(**values)
        oracle = transformers.AutoModelForCausalLM.from_config(config).eval()
        for name, tensor in [*oracle.named_parameters(), *oracle.named_buffers()]:
            if "inv_freq" in name or (tensor.dim() == 1 and "correction_bias" not in name):
                continue
            tensor.data.normal_(0, 0.1)
        oracle.save_pretrained(folder)
    return oracle


@pytest.fixture(scope="session")
def tiny_folder(bundled: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A servable random model with the bundled model's tokenizer: fast, and talking nonsense."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_oracle(folder, vocab_size=49152, max_position_embeddings=8192)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(bundled.path / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def real_server(bundled: ModelFolder) -> Iterator[ServerProcess]:
    with ServerProcess("--max-queue", "32") as server:
        yield server

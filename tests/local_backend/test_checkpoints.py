"""Checkpoints as DeepSeek publishes them: generations, shards, FP8 blocks, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import decoders, models, pre_tokenizers, trainers

from local_backend.engine.latents import LatentPool
from local_backend.errors import WeightsError
from local_backend.kernels.fp8 import quantize_blocks
from local_backend.model.config_json import parse_config
from local_backend.model.model import DeepseekV3
from local_backend.weights.load import load_model
from tests.local_backend.conftest import TINY, make_oracle
from tests.local_backend.oracle import assert_agrees
from tests.local_backend.server_process import ServerProcess

CPU = torch.device("cpu")
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 40.0,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 0.707,
    "mscale_all_dim": 0.707,
    "original_max_position_embeddings": 64,
}
# transformers ignores norm_topk_prob for V2.
V2: dict[str, Any] = {"model_type": "deepseek_v2", "norm_topk_prob": False}
GREEDY: dict[str, Any] = {"topk_method": "greedy", "n_group": None, "topk_group": None}
V2_LITE = {**GREEDY, "first_k_dense_replace": 1, "n_shared_experts": 2, "rope_parameters": YARN}
V2_VARIANTS: dict[str, dict[str, Any]] = {
    "V2-Lite": V2_LITE,
    "V2": {"q_lora_rank": 24, "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2},
    "all experts active": {**GREEDY, "num_experts_per_tok": 8, "routed_scaling_factor": 16.0},
}
# Two dense layers, groups, YaRN and a query latent: DeepSeek-V3 in small.
V3: dict[str, Any] = {
    "num_hidden_layers": 4,
    "first_k_dense_replace": 2,
    "n_group": 4,
    "topk_group": 2,
    "q_lora_rank": 24,
    "rope_parameters": YARN,
    "max_position_embeddings": 512,
}


@pytest.mark.parametrize("variant", V2_VARIANTS)
def test_v2_agrees_with_transformers_in_prefill_and_decode(variant: str, tmp_path: Path) -> None:
    oracle = make_oracle(tmp_path, **{**V2, **V2_VARIANTS[variant]})
    assert type(oracle).__name__ == "DeepseekV2ForCausalLM"
    assert_agrees(load_model(tmp_path, 128, CPU, torch.float32), oracle)


def test_v3_agrees_with_transformers_in_prefill_and_decode(tmp_path: Path) -> None:
    oracle = make_oracle(tmp_path, **V3)
    assert_agrees(load_model(tmp_path, 512, CPU, torch.float32), oracle)


@pytest.mark.parametrize("generation", [V3, {**V2, **V2_LITE, "max_position_embeddings": 512}])
@torch.inference_mode()
def test_greedy_text_is_that_of_transformers_over_200_tokens(
    generation: dict[str, Any], tmp_path: Path
) -> None:
    oracle = make_oracle(tmp_path, **generation)
    prompt = torch.randint(3, 256, (1, 20), generator=torch.Generator().manual_seed(4))
    oracle.generation_config.eos_token_id = None
    expected = oracle.generate(prompt, max_new_tokens=200, do_sample=False, pad_token_id=0)
    assert len(set(expected[0].tolist())) > 20
    assert (
        greedy(load_model(tmp_path, 512, CPU, torch.float32), prompt[0].tolist(), 200) == expected[0].tolist()
    )


def greedy(model: DeepseekV3, ids: list[int], tokens: int) -> list[int]:
    pool = LatentPool(model.config, 1, 512, CPU)
    start = 0
    for _ in range(tokens):
        new = torch.tensor([ids[start:]])
        hidden = model(new, torch.arange(start, len(ids))[None], pool.rows([0], start, len(ids)))
        start = len(ids)
        ids = [*ids, int(model.logits(hidden[:, -1]).argmax())]
    return ids


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value != "absent"}))


def test_a_bfloat16_checkpoint_in_shards_loads(tmp_path: Path) -> None:
    oracle = make_oracle(tmp_path, **V3)
    oracle.to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="200KB")
    (tmp_path / "model.safetensors").unlink(missing_ok=True)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    again = transformers.DeepseekV3ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert_agrees(load_model(tmp_path, 512, CPU, torch.float32), again)


def to_fp8(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As DeepSeek-V3 is published: every projection in e4m3, embeddings, norms and router as they were."""
    quantized = {}
    for name, tensor in tensors.items():
        if "proj" in name and name.endswith(".weight"):
            codes, scales = quantize_blocks(tensor)
            quantized |= {name: codes, f"{name}_scale_inv": scales}
        else:
            quantized[name] = tensor
    return quantized


FP8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}


def test_an_fp8_checkpoint_with_ragged_blocks_loads(tmp_path: Path) -> None:
    """Widths 160 and 200 leave ragged blocks both ways; the oracle gets the values they stand for."""
    wide = {
        "hidden_size": 160,
        "intermediate_size": 200,
        "moe_intermediate_size": 136,
        "num_hidden_layers": 2,
    }
    oracle = make_oracle(tmp_path, **{**V3, **wide, "first_k_dense_replace": 1})
    rewrite(tmp_path, to_fp8)
    edit_config(tmp_path, quantization_config=FP8)
    model = load_model(tmp_path, 512, CPU, torch.float32)
    first = model.layers[0].get_submodule("self_attn.o_proj").get_parameter("weight")
    exact = oracle.model.layers[0].self_attn.o_proj.weight.detach()
    assert 0.001 < float((first - exact).norm() / exact.norm()) < 0.05
    with torch.no_grad():
        for name, parameter in oracle.named_parameters():
            if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
                for matrix in parameter.split(136, 1) if "gate" in name else [parameter]:
                    for expert in matrix:
                        expert.copy_(rounded(expert))
            elif "proj" in name:
                parameter.copy_(rounded(parameter))
    assert_agrees(model, oracle)


def rounded(weight: torch.Tensor) -> torch.Tensor:
    codes, scales = quantize_blocks(weight)
    wide = scales.repeat_interleave(128, 0).repeat_interleave(128, 1)
    return codes.float() * wide[: len(weight), : weight.shape[1]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kv_lora_rank": "absent", "v_head_dim": "absent"}, r"lacks kv_lora_rank, v_head_dim"),
        ({"model_type": "llama"}, r"'llama' is not supported, only 'deepseek_v2' or 'deepseek_v3'"),
        ({"scoring_func": "relu"}, "scoring_func 'relu'"),
        ({"topk_method": "best"}, "topk_method 'best'"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"moe_layer_freq": 2}, "moe_layer_freq 2"),
        ({"n_group": 3}, "n_group 3"),
        ({"n_group": 2, "topk_group": 4}, "topk_group 4"),
        ({"n_group": 4, "topk_group": 1}, "exceeds the 2 experts"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope_type 'llama3'"),
        ({"quantization_config": {"quant_method": "awq"}}, "'awq'.*convert the weights to bfloat16"),
    ],
)
def test_an_unsupported_config_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    raw = {"model_type": "deepseek_v3", "rms_norm_eps": 1e-6, **TINY, **changes}
    with pytest.raises(WeightsError, match=message):
        parse_config({name: value for name, value in raw.items() if value != "absent"})


def drop(name: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


ROUTER_BIAS = "model.layers.1.mlp.gate.e_score_correction_bias"
LATENT = "model.layers.0.self_attn.kv_a_proj_with_mqa.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop(ROUTER_BIAS), f"no tensor '{ROUTER_BIAS}'"),
        (
            lambda tensors: tensors | {LATENT: torch.zeros(3, 64)},
            "(?s)does not fit its config.json.*kv_a_proj",
        ),
        (
            lambda tensors: tensors | {"model.layers.0.self_attn.q_a_proj.weight": torch.zeros(2, 2)},
            "check q_lora_rank",
        ),
        (to_fp8, "no quantization_config"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], message: str, tmp_path: Path
) -> None:
    make_oracle(tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(WeightsError, match=message):
        load_model(tmp_path, 128, CPU, torch.float32)


def test_missing_or_wrong_scales_are_named(tmp_path: Path) -> None:
    make_oracle(tmp_path)
    edit_config(tmp_path, quantization_config=FP8)
    scale = f"{LATENT}_scale_inv"
    rewrite(tmp_path, lambda tensors: drop(scale)(to_fp8(tensors)))
    with pytest.raises(WeightsError, match=scale):
        load_model(tmp_path, 128, CPU, torch.float32)
    rewrite(tmp_path, lambda tensors: tensors | {scale: torch.ones(2, 2)})
    with pytest.raises(WeightsError, match=f"{scale}.*do not fit"):
        load_model(tmp_path, 128, CPU, torch.float32)


def test_a_folder_from_elsewhere_is_served(tmp_path: Path) -> None:
    """A V2 model in FP8 with a byte-level tokenizer of its own, from folder to answer."""
    folder = tmp_path / "stranger"
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["the quick brown fox jumps over the lazy dog"] * 4, trainer)
    size = tokenizer.get_vocab_size()
    variant = {**V2_LITE, "vocab_size": size, "eos_token_id": 1, "max_position_embeddings": 512}
    oracle = make_oracle(folder, **V2, **variant)
    rewrite(folder, to_fp8)
    edit_config(folder, quantization_config=FP8)
    tokenizer.save(str(folder / "tokenizer.json"))
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}</s>"
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": template, "eos_token": "</s>"})
    )
    prompt = tokenizer.encode("the lazy fox").ids
    expected = greedy(load_model(folder, 512, CPU, torch.float32), prompt, 200)[len(prompt) :]
    assert isinstance(oracle, transformers.DeepseekV2ForCausalLM)
    with ServerProcess("--model", str(folder), "--dtype", "float32") as server, server.client() as client:
        completion = client.completions.create(
            model="stranger", prompt=prompt, max_tokens=200, temperature=0, logit_bias={"1": -100}
        )
        chat = client.chat.completions.create(
            model="stranger", messages=[{"role": "user", "content": "the dog"}], max_tokens=3
        )
    assert 1 not in expected
    assert completion.choices[0].text == tokenizer.decode(expected)
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 200
    assert chat.usage is not None
    assert chat.usage.prompt_tokens == len(tokenizer.encode("the dog</s>").ids)

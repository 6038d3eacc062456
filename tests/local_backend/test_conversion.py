"""A dense Llama, written as GGUF, must compute the same after conversion to MLA and MoE."""

from pathlib import Path

import gguf
import pytest
import torch
import transformers

from local_backend.engine.latents import LatentPool
from local_backend.errors import WeightsError
from local_backend.weights import deepseek_io
from local_backend.weights.convert import converted_config, converted_tensors
from local_backend.weights.gguf import LlamaGguf
from local_backend.weights.load import load_model
from local_backend.weights.prepare import ModelFolder, prepare_model
from local_backend.weights.progress import silent

CPU = torch.device("cpu")
HIDDEN, HEADS, GROUPS, FFN, LAYERS, CONTEXT = 96, 6, 2, 12 * 16, 3, 64
TOKENS = [bytes([b]).decode("latin1") for b in range(0x21, 0x7F)] + ["ab", "cd", "<|end|>"]


def dense_model() -> transformers.LlamaForCausalLM:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=HIDDEN,
        intermediate_size=FFN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=GROUPS,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
    )
    model = transformers.LlamaForCausalLM(config).eval()
    for tensor in model.parameters():
        tensor.data.normal_(1 if tensor.dim() == 1 else 0, 0.2)
    return model


def interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Hugging Face's half-split rotary rows in GGUF's order."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def write_gguf(
    model: transformers.LlamaForCausalLM, path: Path, ffn: int = FFN, architecture: str = "llama"
) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_uint32(f"{architecture}.block_count", LAYERS)
    writer.add_uint32(f"{architecture}.context_length", CONTEXT)
    writer.add_uint32(f"{architecture}.embedding_length", HIDDEN)
    writer.add_uint32(f"{architecture}.feed_forward_length", ffn)
    writer.add_uint32(f"{architecture}.attention.head_count", HEADS)
    writer.add_uint32(f"{architecture}.attention.head_count_kv", GROUPS)
    writer.add_float32(f"{architecture}.rope.freq_base", 100000.0)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([1] * (len(TOKENS) - 1) + [3])
    writer.add_token_merges(["a b", "c d"])
    writer.add_eos_token_id(len(TOKENS) - 1)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
    names |= {
        "self_attn.o_proj": "attn_output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    names |= {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    state = model.state_dict()
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"].numpy())
    writer.add_tensor("output_norm.weight", state["model.norm.weight"].numpy())
    for layer in range(LAYERS):
        for theirs, ours in names.items():
            weight = state[f"model.layers.{layer}.{theirs}.weight"]
            if ours in ("attn_q", "attn_k"):
                weight = interleaved(weight, HEADS if ours == "attn_q" else GROUPS)
            writer.add_tensor(f"blk.{layer}.{ours}.weight", weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def converted(tmp_path: Path) -> tuple[transformers.LlamaForCausalLM, Path]:
    dense = dense_model()
    write_gguf(dense, tmp_path / "dense.gguf")
    source = LlamaGguf(tmp_path / "dense.gguf")
    folder = tmp_path / "folder"
    folder.mkdir()
    deepseek_io.write_tensors(folder, dict(converted_tensors(source)))
    deepseek_io.write_config(folder, converted_config(source.config), {})
    return dense, folder


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@torch.inference_mode()
def test_conversion_keeps_the_logits(converted: tuple[transformers.LlamaForCausalLM, Path]) -> None:
    dense, folder = converted
    ids = torch.randint(0, len(TOKENS), (1, 40), generator=torch.Generator().manual_seed(1))
    expected = dense(ids).logits
    model = load_model(folder, CONTEXT, CPU, torch.float32)
    view = LatentPool(model.config, 1, CONTEXT, CPU).rows([0], 0, 40)
    for absorbed in (False, True):
        found = model.logits(model(ids, torch.arange(40)[None], view, absorbed))
        assert relative(found, expected) < 1e-4
    transformers_too = transformers.DeepseekV3ForCausalLM.from_pretrained(folder).eval()
    assert relative(transformers_too(ids).logits, expected) < 1e-4


@torch.inference_mode()
def test_reduced_products_stay_near_float32(converted: tuple[transformers.LlamaForCausalLM, Path]) -> None:
    dense, folder = converted
    ids = torch.randint(0, len(TOKENS), (1, 40), generator=torch.Generator().manual_seed(1))
    model = load_model(folder, CONTEXT, CPU, torch.bfloat16)
    view = LatentPool(model.config, 1, CONTEXT, CPU).rows([0], 0, 40)
    found = model.logits(model(ids, torch.arange(40)[None], view, absorbed=False))
    assert 1e-6 < relative(found, dense(ids).logits) < 0.05


@torch.inference_mode()
def test_the_bundled_model_is_the_same_in_transformers_and_here(bundled: ModelFolder) -> None:
    oracle = transformers.DeepseekV3ForCausalLM.from_pretrained(bundled.path).eval()
    ids = torch.randint(0, 49152, (1, 12), generator=torch.Generator().manual_seed(3))
    model = load_model(bundled.path, 64, CPU, torch.float32)
    view = LatentPool(model.config, 1, 64, CPU).rows([0], 0, 12)
    found = model.logits(model(ids, torch.arange(12)[None], view, absorbed=False))
    assert relative(found, oracle(ids).logits) < 1e-4


def test_a_gguf_file_is_converted_once_and_again_when_it_is_damaged(tmp_path: Path) -> None:
    write_gguf(dense_model(), tmp_path / "dense.gguf")
    stages: list[str] = []

    def watch(stage: str, done: int, total: int) -> None:
        stages.append(stage)

    first = prepare_model(str(tmp_path / "dense.gguf"), "exact", tmp_path / "cache", watch)
    assert first.model_id == "dense"
    assert "converting to MLA and MoE" in stages
    stages.clear()
    assert prepare_model(str(tmp_path / "dense.gguf"), "exact", tmp_path / "cache", watch) == first
    assert "converting to MLA and MoE" not in stages

    weights = first.path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    prepare_model(str(tmp_path / "dense.gguf"), "exact", tmp_path / "cache", watch)
    assert "converting to MLA and MoE" in stages
    assert weights.read_bytes() != content
    assert [path for path in first.path.parent.iterdir() if path.is_dir()] == [first.path]


@pytest.mark.parametrize(
    ("ffn", "architecture", "message"), [(FFN - 1, "llama", "equal experts"), (FFN, "qwen3", "architecture")]
)
def test_what_cannot_be_converted_is_refused(
    tmp_path: Path, ffn: int, architecture: str, message: str
) -> None:
    write_gguf(dense_model(), tmp_path / "dense.gguf", ffn, architecture)
    with pytest.raises(WeightsError, match=message):
        prepare_model(str(tmp_path / "dense.gguf"), "exact", tmp_path / "cache", silent)


def test_a_damaged_gguf_is_named(tmp_path: Path) -> None:
    (tmp_path / "dense.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(WeightsError, match=r"dense\.gguf"):
        prepare_model(str(tmp_path / "dense.gguf"), "exact", tmp_path / "cache", silent)
